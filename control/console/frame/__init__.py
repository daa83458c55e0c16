"""What all pages have in common: who looks, how a page is rendered, its navigation, and what it is made of."""
