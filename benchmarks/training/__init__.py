"""The same fine-tuning by lorakit and by its peers, one process an arm."""
