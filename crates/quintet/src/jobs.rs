//! `quintet jobs`: list, get, watch, logs, cancel, delete.

use std::io::Write as _;

use quintet_proto::v1::{DeleteJobRequest, Job, JobState, ListJobsRequest, StreamLogsRequest};
use runtime_core::{
    client::{Backoff, JobClient},
    jobs::model::{is_terminal, is_uid, job_kind, job_name, millis},
};
use tonic::Code;

use crate::{
    cli::{Format, JobsCommand, Target},
    connect::Server,
    failure::{Failure, remedy},
    report::table,
    run::{Interrupts, follow, view::View},
};

/// Runs one of the commands.
///
/// # Errors
/// The failure with its exit code.
pub(crate) async fn jobs(command: JobsCommand) -> Result<(), Failure> {
    let server = Server::open(target(&command), matches!(command, JobsCommand::Watch { .. })).await?;
    let result = Box::pin(dispatch(command, &server.jobs())).await;
    server.close().await;
    result
}

fn target(command: &JobsCommand) -> &Target {
    match command {
        JobsCommand::List { target, .. }
        | JobsCommand::Get { target, .. }
        | JobsCommand::Watch { target, .. }
        | JobsCommand::Logs { target, .. }
        | JobsCommand::Cancel { target, .. }
        | JobsCommand::Delete { target, .. } => target,
    }
}

async fn dispatch(command: JobsCommand, client: &JobClient) -> Result<(), Failure> {
    match command {
        JobsCommand::List { limit, kind, state, parent, output, .. } => {
            let states = state.iter().map(|state| parse_state(state)).collect::<Result<_, _>>()?;
            let parent = match parent {
                Some(parent) => find(client, &parent).await?,
                None => String::new(),
            };
            let filter =
                ListJobsRequest { parent, states, kind: kind.unwrap_or_default(), ..ListJobsRequest::default() };
            list(client, filter, limit, output).await
        }
        JobsCommand::Get { job, output, .. } => {
            let job = client.get(&find(client, &job).await?).await?;
            match output {
                Format::Table => write(&described(&job)),
                other => print(&job, other),
            }
        }
        JobsCommand::Watch { job, .. } => watch(client, &job).await,
        JobsCommand::Logs { job, follow, attempt, .. } => {
            let request = StreamLogsRequest {
                name: find(client, &job).await?,
                attempt: attempt.unwrap_or_default(),
                offset: 0,
                follow,
            };
            logs(client, request).await
        }
        JobsCommand::Cancel { jobs, .. } => {
            for job in jobs {
                let job = client.cancel(&find(client, &job).await?, false, "quintet jobs cancel").await?;
                println!("{} {}", job.name, job.state().as_str_name());
            }
            Ok(())
        }
        JobsCommand::Delete { jobs, .. } => {
            for job in jobs {
                let name = find(client, &job).await?;
                client.raw().delete_job(DeleteJobRequest { name: name.clone() }).await?;
                println!("{name} deleted");
            }
            Ok(())
        }
    }
}

fn parse_state(text: &str) -> Result<i32, Failure> {
    let states = (1..).map_while(|number| JobState::try_from(number).ok());
    let found = states.clone().find(|state| state.as_str_name().eq_ignore_ascii_case(text));
    found.map(i32::from).ok_or_else(|| {
        let names: Vec<&str> = states.map(|state| state.as_str_name()).collect();
        Failure::usage(format!("`{text}` is no state of a job; allowed: {}", names.join(", ")))
    })
}

/// The name of the job that an id, a name or the beginning of an id stands for.
///
/// # Errors
/// Usage when no job or more than one begins so.
pub(crate) async fn find(client: &JobClient, text: &str) -> Result<String, Failure> {
    let prefix = text.strip_prefix("jobs/").unwrap_or(text).to_ascii_lowercase();
    if is_uid(&prefix) {
        return Ok(job_name(&prefix));
    }
    if prefix.is_empty() || prefix.len() > 32 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!("`{text}` is no id of a job: up to 32 hexadecimal digits")));
    }
    let mut found = Vec::new();
    each(client, ListJobsRequest { page_size: 1000, ..ListJobsRequest::default() }, |job| {
        if job.uid.starts_with(&prefix) {
            found.push(job);
        }
        found.len() < 5
    })
    .await?;
    match found.as_slice() {
        [job] => Ok(job.name.clone()),
        [] => Err(Failure::usage(format!("there is no job whose id begins with `{prefix}`; see `quintet jobs list`"))),
        several => {
            let rows = several.iter().map(|job| format!("  {} {} {}", job.uid, job_kind(job), job.display_name));
            let rows = rows.collect::<Vec<_>>().join("\n");
            Err(Failure::usage(format!("more than one job's id begins with `{prefix}`:\n{rows}")))
        }
    }
}

/// Reads pages until `take` has enough.
async fn each(
    client: &JobClient,
    mut request: ListJobsRequest,
    mut take: impl FnMut(Job) -> bool,
) -> Result<(), Failure> {
    loop {
        let page = client.raw().list_jobs(request.clone()).await?.into_inner();
        for job in page.jobs {
            if !take(job) {
                return Ok(());
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

async fn list(client: &JobClient, mut filter: ListJobsRequest, limit: usize, output: Format) -> Result<(), Failure> {
    filter.page_size = i32::try_from(limit.clamp(1, 1000)).unwrap_or(1000);
    let mut jobs = Vec::new();
    if limit > 0 {
        each(client, filter, |job| {
            jobs.push(job);
            jobs.len() < limit
        })
        .await?;
    }
    if output != Format::Table {
        return print(&jobs, output);
    }
    let now = jiff::Timestamp::now().as_millisecond();
    let mut table = table::plain(["ID", "NAME", "KIND", "STATE", "PROGRESS", "AGE"]);
    for job in &jobs {
        let age = job.create_time.as_ref().map_or(0, |time| now - millis(time)).max(0);
        table.add_row([
            job.uid.chars().take(8).collect(),
            job.display_name.clone(),
            job_kind(job).to_owned(),
            state(job),
            progress(job),
            table::duration(age as f64 / 1000.0),
        ]);
    }
    write(&table.lines().map(|line| line.trim_end().to_owned() + "\n").collect::<String>())
}

fn state(job: &Job) -> String {
    let state = job.state().as_str_name();
    match (&job.error, job.reused_from.is_empty()) {
        (Some(error), _) if !error.reason.is_empty() => format!("{state} ({})", error.reason),
        (_, false) => format!("{state} (reused)"),
        _ => state.to_owned(),
    }
}

fn progress(job: &Job) -> String {
    let Some(progress) = job.progress.as_ref().filter(|_| !is_terminal(job.state())) else { return String::new() };
    let mut text = crate::run::view::amount(progress);
    if let Some(best) = progress.best {
        text = format!("{text}, best {}", table::number(best));
    }
    // A sweep says so in its own words.
    if progress.message.split(", ").any(|part| part == "paused") {
        text += ", paused";
    }
    text
}

/// Prints a message as JSON or YAML.
pub(crate) fn print<T: serde::Serialize>(value: &T, format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Yaml => serde_norway::to_string(value).map_err(|error| Failure::failed(error.to_string()))?,
        _ => serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))? + "\n",
    };
    write(&text)
}

/// Writes to standard output; a reader that has gone is no error (`quintet jobs list | head`).
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn described(job: &Job) -> String {
    let time = |time: &Option<quintet_proto::types::Timestamp>| {
        let time = time.as_ref().and_then(|time| jiff::Timestamp::from_millisecond(millis(time)).ok());
        time.map_or_else(String::new, |time| time.to_string())
    };
    let mut rows = vec![
        ("name", job.name.clone()),
        ("display name", job.display_name.clone()),
        ("kind", job_kind(job).to_owned()),
        ("state", state(job)),
        ("attempt", job.attempt.to_string()),
        ("progress", progress(job)),
        ("parent", job.parent.clone()),
        ("reused from", job.reused_from.clone()),
        ("experiment", job.experiment.clone()),
        ("labels", job.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")),
        ("created", time(&job.create_time)),
        ("started", time(&job.start_time)),
        ("ended", time(&job.end_time)),
        ("worker", job.worker.clone()),
        ("content hash", job.content_hash.clone()),
    ];
    if let Some(error) = &job.error {
        rows.push(("error", format!("{}\n{}", error.message, remedy(&error.reason))));
        rows.push(("log tail", error.log_tail.trim_end().to_owned()));
    }
    let outputs = job.outputs.clone().unwrap_or_default();
    for (name, artifact) in &outputs.artifacts {
        let text = format!(
            "{name}: {} ({} files, {})",
            artifact.uri,
            artifact.file_count,
            table::size(artifact.size_bytes as f64)
        );
        rows.push(("output", text));
    }
    for (name, value) in &outputs.metrics {
        rows.push(("metric", format!("{name} = {}", table::number(*value))));
    }
    let mut table = table::plain(["", ""]);
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([name.to_owned(), value]);
    }
    table.lines().skip(1).map(|line| line.trim_end().to_owned() + "\n").collect()
}

async fn watch(client: &JobClient, text: &str) -> Result<(), Failure> {
    let job = client.get(&find(client, text).await?).await?;
    let label = if job.display_name.is_empty() { job.uid.chars().take(8).collect() } else { job.display_name.clone() };
    let view = View::new().stage(&label, 0);
    let mut interrupts = Interrupts::new()?;
    let job = tokio::select! {
        job = follow::to_the_end(client, &job, &view) => job?,
        signal = interrupts.next() => return Err(Failure { code: signal.code(), message: String::new() }),
    };
    view.ended(&job);
    match job.state() {
        JobState::Succeeded => Ok(()),
        _ => Err(Failure::failed(follow::explained(&job))),
    }
}

async fn logs(client: &JobClient, mut request: StreamLogsRequest) -> Result<(), Failure> {
    let any_attempt = request.attempt == 0;
    let mut backoff = Backoff::default();
    loop {
        let mut stream = client.logs(request.clone()).await?;
        let ended = loop {
            match stream.message().await {
                Ok(Some(chunk)) => {
                    backoff.reset();
                    let mut out = std::io::stdout().lock();
                    if out.write_all(&chunk.data).and_then(|()| out.flush()).is_err() {
                        // The reader has gone.
                        return Ok(());
                    }
                    request.attempt = chunk.attempt;
                    request.offset = chunk.offset + chunk.data.len() as i64;
                }
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            }
        };
        match ended {
            Err(status)
                if matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal) =>
            {
                backoff.pause().await;
            }
            Err(status) => return Err(status.into()),
            Ok(()) if !request.follow => return Ok(()),
            Ok(()) => {
                let job = client.get(&request.name).await?;
                if is_terminal(job.state()) || !any_attempt {
                    return Ok(());
                }
                if job.attempt > request.attempt {
                    (request.attempt, request.offset) = (0, 0);
                }
                backoff.pause().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::Progress;

    use super::*;

    #[test]
    fn a_paused_sweep_is_told_in_the_list() {
        let progress = |message: &str| {
            let (done, total, unit) = (3.0, 8.0, "trials".to_owned());
            let progress =
                Progress { done, total, unit, best: Some(0.5), message: message.into(), ..Progress::default() };
            super::progress(&Job { state: JobState::Running.into(), progress: Some(progress), ..Job::default() })
        };
        assert_eq!(progress("best f1 0.5 (trial 1), paused, 0 running"), "3/8 trials, best 0.5000, paused");
        assert_eq!(progress("best f1 0.5 (trial 1), 2 running"), "3/8 trials, best 0.5000");
    }
}
