"""The five tips of docs/tips.md, a module each: measured, printed, drawn."""
