"""What QGIS reads: styles, attribute tables, rows in a GeoPackage. Text in, text out."""
