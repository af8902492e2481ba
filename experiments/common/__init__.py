"""What the studies beside this folder share (`study`), and parts of single ones; nothing here is run by itself."""
