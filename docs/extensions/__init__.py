"""What the site shows that no page of text can hold: code in columns, pictures, tables."""
