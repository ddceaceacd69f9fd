# What failed, from the events of a run: jq -s -f failed.jq events.jsonl
# The newest word on a job counts.
map(select(.event_type == "chunk_failed" or .event_type == "chunk_completed" or .event_type == "chunk_retried"))
| group_by(.job_id)
| map(last | select(.event_type == "chunk_failed"))
| map({job: .job_id, class: .verdict.class, error, node})
