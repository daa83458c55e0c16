"""An upgraded connection carries bytes both ways here, and what they cost is charged before they go on."""
