"""How the page looks: a column on a phone, three beside each other on a desk; dark where the reader's screen is."""

STYLE = """
:root { --paper: #fcfcfa; --ink: #22252a; --pale: #666c75; --grid: #dedfdc; --grey: #b4b7b9; --wash: #f1f1ed;
  --series-1: #2f6ba8; --series-2: #cf6f1e; --series-3: #3f8a55; --series-4: #8a559f; --series-5: #c0454d;
  --series-6: #1f8d96; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17191c; --ink: #e6e6e2; --pale: #a0a5ac; --grid: #33373c; --grey: #5d6369; --wash: #202327;
    --series-1: #7fb2ea; --series-2: #f0a35c; --series-3: #86c996; --series-4: #c79bdb; --series-5: #f0868c;
    --series-6: #62cbd2; } }
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%; }
body { margin: 0; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans",
  "Liberation Sans", Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 40px 32px 72px; }
h1, h2, p, dt, dd, li, figcaption { overflow-wrap: anywhere; }
h1 { font-size: 34px; line-height: 1.15; margin: 0 0 20px; letter-spacing: -0.015em; }
h2 { font-size: 21px; line-height: 1.25; margin: 0 0 16px; }
.kind { margin: 0 0 2px; color: var(--pale); font-size: 13px; letter-spacing: 0.08em; text-transform: uppercase; }
header > p { max-width: 72ch; margin: 10px 0; text-wrap: pretty; }
.weighty { font-weight: 600; }
header .weighty { font-size: 19px; line-height: 1.4; }
section { margin-top: 44px; padding-top: 28px; border-top: 1px solid var(--grid); }
section > p { max-width: 78ch; margin: 10px 0; text-wrap: pretty; }
section > p.weighty { border-left: 3px solid var(--series-2); padding-left: 14px; margin-top: 24px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin-top: 24px; font-size: 15px; }
a { color: var(--series-1); text-underline-offset: 3px; }
pre { background: var(--wash); border-radius: 8px; padding: 12px 16px; margin: 14px 0; overflow-x: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; }
code, .code { font: 13.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 160px), 1fr)); gap: 12px 28px;
  margin: 24px 0 0; }
dt { color: var(--pale); font-size: 13px; }
dd { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 28px 32px;
  margin: 0 0 28px; }
figure { margin: 0; min-width: 0; }
.charts figure { max-width: 480px; }
svg { display: block; width: 100%; height: auto; stroke-linejoin: round; }
figcaption { color: var(--pale); font-size: 13.5px; line-height: 1.45; }
figcaption { margin-top: 8px; max-width: 84ch; }
.key { list-style: none; display: flex; flex-direction: column; gap: 7px; margin: 6px 0 0; padding: 0;
  font-size: 14px; }
.key li { display: flex; gap: 8px; align-items: baseline; min-width: 0; }
.key i { flex: none; min-width: 20px; padding: 0 5px; border-radius: 10px; color: var(--paper);
  font: 700 12px/20px system-ui, sans-serif; text-align: center; }
.s1 { background: var(--series-1); } .s2 { background: var(--series-2); } .s3 { background: var(--series-3); }
.s4 { background: var(--series-4); } .s5 { background: var(--series-5); } .s6 { background: var(--series-6); }
.rest { background: var(--grey); }
.box { overflow-x: auto; }
figure.table { margin: 0 0 20px; }
summary { cursor: pointer; color: var(--series-1); margin-bottom: 8px; }
.box:focus-visible, a:focus-visible { outline: 2px solid var(--series-1); outline-offset: 3px; }
table { border-collapse: collapse; min-width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }

th, td { padding: 6px 18px 6px 0; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
th:last-child, td:last-child { padding-right: 2px; }
th, th.code { color: var(--pale); font: inherit; font-size: 13px; vertical-align: bottom; }
.number { text-align: right; }
td.code { white-space: normal; line-height: 1.65; }
td.name { white-space: nowrap; }
.wraps td.code { white-space: normal; overflow-wrap: anywhere; min-width: 110px; }
.wraps td.code:last-child { overflow-wrap: anywhere; min-width: 200px; }
@media (min-width: 1000px) {
  .leaderboard, .speed { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0 32px;
    align-items: start; }
  .leaderboard h2, .speed h2 { grid-column: 1 / -1; }
  .leaderboard .charts, .speed .charts { grid-template-columns: 1fr; }
  .leaderboard .table, .speed .table { grid-column: 2 / -1; } }
@media (max-width: 800px) { .key { order: -1; } }
@media (max-width: 560px) {
  main { padding: 24px 16px 48px; }
  h1 { font-size: 27px; }
  section { margin-top: 32px; padding-top: 22px; }
  th, td { padding-right: 14px; } }
@media print { nav { display: none; } section { break-inside: avoid; } }
"""
