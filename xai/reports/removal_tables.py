"""SALVAGE's Tables 1 to 4: one table for each data set, and what the paper printed as a table of its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from xai.errors import UserError
from xai.reports.columns import Column
from xai.reports.removal_roles import COLUMNS, KINDS, LIKELIHOOD, ROLES
from xai.reports.tables import Block, Cell, Row, Table, transfer_table
from xai.results import Result

FAITHFULNESS = ("srg", "r_srg", "rma", "rra")
RANKED = ("lif", "mif")
DRAWN = ("r_lif", "r_mif")
POINTING = ("pointing_game", "grid_pointing")
CLASSIFICATION = ("accuracy", "agreement", "precision", "recall", "f1", "mcc")
"""Columns of Tables 1, 2 and 3, two that the paper does not have, and those of Table 4."""

Published = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Figures the paper printed: data set -> role -> metric -> value, in the unit of the column."""


def removal_tables(results: Sequence[Result], metrics: Sequence[str]) -> list[Table]:
    """A table for each data set, rows by role, mean and half its 95 % interval over seeds.

    Results without any of the metrics are no rows of it, such as the classifiers where maps are measured.

    Args:
        results: Of one split; for each data set at most one of a role, model and seed.
        metrics: Columns in their order.

    Raises:
        UserError: No metric or an unknown one, a role that is no row, or no result that has any of the metrics.
    """
    unknown = [name for name in metrics if name not in COLUMNS]
    if not metrics:
        raise UserError(f"a table without columns; choose from {', '.join(COLUMNS)}")
    if unknown:
        raise UserError(f"{unknown[0]!r} is no column of these tables; there are {', '.join(COLUMNS)}")
    columns = {name: COLUMNS[name] for name in metrics}
    rows = [result for result in results if result.role != LIKELIHOOD and columns.keys() & result.metrics.keys()]
    if not rows:
        raise UserError(f"no result has {' or '.join(metrics)}; there are {len(results)} results")
    data = dict.fromkeys(result.data for result in rows)
    return [_table([result for result in rows if result.data == name], columns) for name in data]


def published_table(published: Published, metrics: Sequence[str], title: str) -> Table:
    """What the paper printed, the columns of all its data sets side by side.

    Args:
        published: Figures by data set, role and metric.
        metrics: Columns of each data set in their order; those it has no figure for are left out.
        title: Says whose figures they are.

    Raises:
        UserError: A role or a metric that these tables do not have.
    """
    _check_published(published, metrics)
    groups = [
        (data, metric)
        for data, rows in published.items()
        for metric in metrics
        if any(metric in figures for figures in rows.values())
    ]
    columns = tuple(_of_data(COLUMNS[metric], data) for data, metric in groups)
    rows = tuple(
        Row(role, tuple(Cell(published[data].get(name, {}).get(metric, math.nan)) for data, metric in groups), 0)
        for name, role in ROLES.items()
        if any(name in of_data for of_data in published.values())
    )
    return Table(title, columns, (Block("published", "", rows),), (_unit(columns),))


def _table(results: Sequence[Result], columns: Mapping[str, Column]) -> Table:
    table = transfer_table(results, roles=ROLES, columns=columns, kinds=KINDS, spread="interval")
    return replace(table, notes=(_unit(table.columns), *table.notes))


def _unit(columns: Sequence[Column]) -> str:
    shares = [column.scale == 100 for column in columns]
    return "In percent." if all(shares) else "In percent, but for MCC."


def _check_published(published: Published, metrics: Sequence[str]) -> None:
    for data, rows in published.items():
        for role, figures in rows.items():
            where = f"published figures of {data}, {role}"
            if role not in ROLES:
                raise UserError(f"{where}: {role!r} is no row of this table; its rows are {', '.join(ROLES)}")
            unknown = [metric for metric in figures if metric not in metrics]
            if unknown:
                raise UserError(f"{where}: {unknown[0]!r} is no column of this table, which has {', '.join(metrics)}")


def _of_data(column: Column, data: str) -> Column:
    return replace(
        column, name=f"{data}.{column.name}", label=f"{data} {column.label}", short=f"{data}\n{column.short}"
    )
