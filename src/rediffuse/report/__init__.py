"""From run folders to a page. Imports nothing that trains."""
