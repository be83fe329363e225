"""What is asked in the benchmarks: questions with the same in SQL, and ten that are typical."""

from typing import Any

# What a person would type into DuckDB for the same figures; the product's path is query_usage.
QUESTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "by month": (
        {"metrics": ["active_users", "chat_events", "completion_acceptance_rate"], "group_by": ["month"]},
        "SELECT date_trunc('month', timestamp_date), count(DISTINCT instance_user_id), sum(chat_events), "
        "sum(completion_acceptances) / sum(completion_suggestions) FROM usage GROUP BY 1 ORDER BY 1",
    ),
    "by language": (
        {"metrics": ["completion_acceptances", "completion_acceptance_rate"], "group_by": ["language"]},
        "SELECT language, sum(completion_acceptances), sum(completion_acceptances) / sum(completion_suggestions) "
        "FROM usage GROUP BY 1 ORDER BY 2 DESC",
    ),
    "by week": (
        {"metrics": ["active_users"], "group_by": ["week"]},
        "SELECT date_trunc('week', timestamp_date), count(DISTINCT instance_user_id) FROM usage GROUP BY 1 ORDER BY 1",
    ),
    "top users": (
        {"metrics": ["chat_events", "searches"], "group_by": ["user"], "limit": 20},
        "SELECT instance_user_id, max(user_email), sum(chat_events), sum(searches) FROM usage GROUP BY 1 "
        "ORDER BY 3 DESC LIMIT 20",
    ),
}

TYPICAL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("query_usage", {"metrics": ["active_users", "chat_events"]}),
    ("query_usage", {"metrics": ["active_users"], "group_by": ["month"], "period": "this_year"}),
    ("query_usage", {"metrics": ["active_users"], "compare_to_previous": True, "period": "last_month"}),
    ("query_usage", {"metrics": ["completion_acceptance_rate"], "group_by": ["language"]}),
    ("query_usage", {"metrics": ["completion_acceptance_rate"], "group_by": ["client"]}),
    ("query_usage", {"metrics": ["hours_saved"], "period": "last_quarter"}),
    ("query_usage", {"metrics": ["searches"], "group_by": ["user"], "limit": 10}),
    ("query_usage", {"metrics": ["active_days"], "group_by": ["week"]}),
    ("list_inactive_users", {"days": 60, "limit": 20}),
    ("query_usage", {"metrics": ["percent_code_written_by_cody"], "group_by": ["month"], "period": "this_year"}),
)
