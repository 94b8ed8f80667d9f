"""Two tasks that are nobody's product: they show that the seams hold, and need no line of src changed."""
