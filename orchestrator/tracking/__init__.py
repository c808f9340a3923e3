"""All of MLflow: what people look at. No other folder imports it."""
