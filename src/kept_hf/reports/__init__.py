"""The report of a run: files, tables, figures; several systems compared."""
