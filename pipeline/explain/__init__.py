"""Maps of where a network looks, and measures of whether these maps mean anything."""
