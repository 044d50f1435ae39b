"""danlu (the alchemist's furnace): trains large models end to end, without alchemy."""
