"""Any job, by its id: its status document (`documents`), the list of jobs (`listing`), counts and rates (`progress`),
why a job makes no progress (`waiting_for`), cancel and retry (`actions`), waiting through an outage (`lost_reads`)."""
