"""Tables of a study: one for each data set, and what its paper printed as a table of its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from xai.core.errors import UserError
from xai.reports.columns import Column
from xai.reports.roles import Role
from xai.reports.tables import Block, Cell, Row, Table, transfer_table
from xai.results import Result

Published = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Figures a paper printed: data set -> role -> metric -> value, in the unit of the column."""


@dataclass(frozen=True)
class Scheme:
    """What the tables of a paper are made of.

    Attributes:
        roles: Rows by name, in their order.
        columns: Metrics by name, in their order.
        kinds: Kinds of rows in the order of their blocks, with their headings.
        besides: Roles of results that are no rows.
    """

    roles: Mapping[str, Role]
    columns: Mapping[str, Column]
    kinds: Mapping[str, str]
    besides: frozenset[str] = frozenset()


def data_tables(results: Sequence[Result], metrics: Sequence[str], scheme: Scheme) -> list[Table]:
    """A table for each data set, rows by role, mean and half its 95 % interval over seeds.

    Results without any of the metrics are no rows of it, such as the classifiers where maps are measured.

    Args:
        results: Of one split; for each data set at most one of a role, model and seed.
        metrics: Columns in their order.
        scheme: The rows and columns there are.

    Raises:
        UserError: No metric or an unknown one, a role that is no row, or no result that has any of the metrics.
    """
    known = scheme.columns
    unknown = [name for name in metrics if name not in known]
    if not metrics:
        raise UserError(f"a table without columns; choose from {', '.join(known)}")
    if unknown:
        raise UserError(f"{unknown[0]!r} is no column of these tables; there are {', '.join(known)}")
    columns = {name: known[name] for name in metrics}
    rows = [r for r in results if r.role not in scheme.besides and columns.keys() & r.metrics.keys()]
    if not rows:
        raise UserError(f"no result has {' or '.join(metrics)}; there are {len(results)} results")
    data = dict.fromkeys(result.data for result in rows)
    return [_table([result for result in rows if result.data == name], columns, scheme) for name in data]


def published_table(published: Published, metrics: Sequence[str], title: str, scheme: Scheme) -> Table:
    """What the paper printed, the columns of all its data sets side by side.

    Args:
        published: Figures by data set, role and metric.
        metrics: Columns of each data set in their order; those it has no figure for are left out.
        title: Says whose figures they are.
        scheme: The rows and columns there are.

    Raises:
        UserError: A role or a metric that these tables do not have.
    """
    _check_published(published, metrics, scheme)
    groups = [
        (data, metric)
        for data, rows in published.items()
        for metric in metrics
        if any(metric in figures for figures in rows.values())
    ]
    columns = tuple(_of_data(scheme.columns[metric], data) for data, metric in groups)
    rows = tuple(
        Row(role, tuple(Cell(published[data].get(name, {}).get(metric, math.nan)) for data, metric in groups), 0)
        for name, role in scheme.roles.items()
        if any(name in of_data for of_data in published.values())
    )
    return Table(title, columns, (Block("published", "", rows),), (_unit(columns),))


def _table(results: Sequence[Result], columns: Mapping[str, Column], scheme: Scheme) -> Table:
    table = transfer_table(results, roles=scheme.roles, columns=columns, kinds=scheme.kinds, spread="interval")
    return replace(table, notes=(_unit(table.columns), *table.notes))


def _unit(columns: Sequence[Column]) -> str:
    others = [column.label for column in columns if column.scale != 100]
    return f"In percent, but for {' and '.join(others)}." if others else "In percent."


def _check_published(published: Published, metrics: Sequence[str], scheme: Scheme) -> None:
    for data, rows in published.items():
        for role, figures in rows.items():
            where = f"published figures of {data}, {role}"
            if role not in scheme.roles:
                raise UserError(f"{where}: {role!r} is no row of this table; its rows are {', '.join(scheme.roles)}")
            unknown = [metric for metric in figures if metric not in metrics]
            if unknown:
                raise UserError(f"{where}: {unknown[0]!r} is no column of this table, which has {', '.join(metrics)}")


def _of_data(column: Column, data: str) -> Column:
    return replace(
        column, name=f"{data}.{column.name}", label=f"{data} {column.label}", short=f"{data}\n{column.short}"
    )
