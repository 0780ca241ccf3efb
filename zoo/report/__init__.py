"""Everything that is rendered from evidence: the report, the README's tables, model cards and plots.

``records`` reads and checks evidence; ``tables`` and ``sections`` say what is shown of it, as ``document`` blocks;
``markdown`` and ``html`` write these down. Nothing here measures.
"""
