"""Everything about MLflow: the store, its runs, and the journal, locks and processes behind them."""
