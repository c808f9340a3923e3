"""Who decides and who keeps: study, cluster, tracker, store, and the command line over them."""
