"""Classification: loss, metrics, report and plots."""
