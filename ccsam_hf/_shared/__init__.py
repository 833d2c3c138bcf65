"""What every room needs: parts by name, refusals, files, tables, figures and safe division. No transformers.

`registry`: names for interchangeable parts. `choices`: names and numbers refused with one wording. `files`: atomic
text, JSON and JSON lines. `markdown`: tables. `division`: torch division that stays finite. `canvas`: figures, the
only module here that needs matplotlib.
"""
