//! Requests over the plain interface, from the first byte to the answer or refusal, and jobs.

#[path = "../support/mod.rs"]
mod support;

mod bad_connections;
mod bad_requests;
mod batch;
mod batching;
mod batching_answers;
mod bodies;
mod body_memory;
mod cross_site;
mod deadlines;
mod descriptors;
mod disconnects;
mod early_replies;
mod heads;
mod jobs;
mod jobs_commands;
mod jobs_durable;
mod jobs_end;
mod jobs_example;
mod jobs_export;
mod jobs_faults;
mod jobs_filters;
mod jobs_forms;
mod jobs_http;
mod jobs_kills;
mod jobs_shared;
mod jobs_steps;
mod metrics;
mod metrics_swaps;
mod output;
mod overload;
mod predict;
mod refused_data;
mod shutdown;
mod signals;
mod slow_clients;
mod starting;
mod unnamed_inputs;
mod webhooks;
mod webhooks_faults;
