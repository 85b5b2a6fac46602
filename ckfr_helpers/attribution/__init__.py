"""Where a network looks: maps, boxes, and how to score them."""
