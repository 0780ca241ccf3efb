"""Everything that is rendered from evidence: the report, the tables of README and docs/results.md, model cards and plots.

``records`` reads and checks evidence; ``tables`` and the ``*_sections`` say what is shown of it, as ``document`` blocks;
``markdown`` and ``html`` write these down. Nothing here measures.
"""
