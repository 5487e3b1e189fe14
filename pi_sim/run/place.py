"""Where two machines meet, and whether what passes between them is encrypted."""
