"""A grammar of chat templates that are hostile more often than not."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = st.sampled_from(["messages", "x", "y", "m.content", "loop", "bos_token", "range", "ns"])
LITERALS = st.sampled_from(
    ["'ab'", "1", "9", "99999", "10**9", "[1, x]", "{'a': x}", "(x, x)", "range(9999)", "-1", "1.5"]
)

FILTERS = (
    "center join replace list length tojson string format indent batch sort map reverse trim "
    "upper wordwrap unique sum int float round first last pprint urlize default select items "
    "dictsort min safe escape title"
)
METHODS = (
    "ljust replace join format split strip zfill expandtabs translate items append upper encode "
    "to_bytes __class__ format_map startswith get rfind rsplit count partition index endswith"
)
OPERATORS = "+ - * / // % ** ~ == < in and or"


def _expressions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    filters = st.sampled_from(FILTERS.split())
    methods = st.sampled_from(METHODS.split())
    operators = st.sampled_from(OPERATORS.split())
    return st.one_of(
        st.builds("({} {} {})".format, inner, operators, inner),
        st.builds("({}|{})".format, inner, filters),
        st.builds("({}|{}({}))".format, inner, filters, inner),
        st.builds("{}.{}({})".format, inner, methods, inner),
        st.builds("{}[{}:]".format, inner, inner),
    )


EXPRESSIONS = st.recursive(NAMES | LITERALS, _expressions, max_leaves=6)


def _statements(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{{% for y in {} %}}{}{{% endfor %}}".format, EXPRESSIONS, inner),
        st.builds("{{% if {} %}}{}{{% endif %}}".format, EXPRESSIONS, inner),
        st.builds(
            "{{% for y in {} if y %}}{{% generation %}}{}{{% endgeneration %}}".format,
            EXPRESSIONS,
            inner,
        ).map(lambda text: text + "{% endfor %}"),
        st.builds("{{% set x %}}{}{{% endset %}}".format, inner),
        st.builds("{{% macro x(y) %}}{}{{% endmacro %}}{{{{ x(1) }}}}".format, inner),
    )


STATEMENTS = st.recursive(
    st.one_of(
        st.builds("{{{{ {} }}}}".format, EXPRESSIONS),
        st.builds("{{% set x = {} %}}".format, EXPRESSIONS),
        st.just("{% set x = [x, x] %}" * 40),
        st.just("{% set ns.x = ns.x ~ ns.x %}"),
    ),
    _statements,
    max_leaves=5,
)
