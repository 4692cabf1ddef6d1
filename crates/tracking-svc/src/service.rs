//! The gRPC face of the store: `quintet.v1.TrackingService`.

use quintet_proto::v1::{self as proto, tracking_service_server::TrackingService};
use tonic::{Request, Response, Status};

use crate::{
    Tracking,
    error::Error,
    model::{self, Metric, Pair, RunStatus, ViewType},
    store::{NewRun, RunSearch, RunUpdate, experiment_id},
    validate::Batch,
};

type Answer<T> = Result<Response<T>, Status>;

fn status_to_proto(status: RunStatus) -> proto::RunStatus {
    match status {
        RunStatus::Running => proto::RunStatus::RunRunning,
        RunStatus::Scheduled => proto::RunStatus::RunScheduled,
        RunStatus::Finished => proto::RunStatus::RunFinished,
        RunStatus::Failed => proto::RunStatus::RunFailed,
        RunStatus::Killed => proto::RunStatus::RunKilled,
    }
}

/// `None` for the unspecified status.
fn status_from_proto(code: i32) -> Result<Option<RunStatus>, Error> {
    let status = proto::RunStatus::try_from(code)
        .map_err(|_| Error::invalid("status", format!("{code} is not a status; 1 to 5 are")))?;
    Ok(match status {
        proto::RunStatus::Unspecified => None,
        proto::RunStatus::RunRunning => Some(RunStatus::Running),
        proto::RunStatus::RunScheduled => Some(RunStatus::Scheduled),
        proto::RunStatus::RunFinished => Some(RunStatus::Finished),
        proto::RunStatus::RunFailed => Some(RunStatus::Failed),
        proto::RunStatus::RunKilled => Some(RunStatus::Killed),
    })
}

fn metric_to_proto(metric: Metric) -> proto::MetricPoint {
    let Metric { key, value, timestamp, step } = metric;
    proto::MetricPoint { key: key.to_string(), value, step, timestamp }
}

fn run_to_proto(run: model::Run) -> proto::Run {
    let pairs = |pairs: Vec<Pair>| pairs.into_iter().map(|pair| (pair.key.to_string(), pair.value)).collect();
    proto::Run {
        run_id: run.info.run_id,
        run_name: run.info.run_name,
        experiment_id: run.info.experiment_id.to_string(),
        status: status_to_proto(run.info.status).into(),
        start_time: run.info.start_time,
        end_time: run.info.end_time,
        artifact_uri: run.info.artifact_uri,
        params: pairs(run.data.params),
        tags: pairs(run.data.tags),
        metrics: run.data.metrics.into_iter().map(metric_to_proto).collect(),
        user_id: run.info.user_id,
    }
}

fn pairs_from_proto(pairs: impl IntoIterator<Item = (String, String)>) -> Vec<Pair> {
    pairs.into_iter().map(|(key, value)| Pair::new(key, value)).collect()
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn required(field: &'static str, text: String) -> Result<String, Error> {
    filled(text).ok_or_else(|| Error::invalid(field, "is missing"))
}

#[tonic::async_trait]
impl TrackingService for Tracking {
    async fn ensure_experiment(&self, request: Request<proto::EnsureExperimentRequest>) -> Answer<proto::Experiment> {
        let experiment = self.store().ensure_experiment(request.into_inner().name).await?;
        Ok(Response::new(proto::Experiment {
            experiment_id: experiment.experiment_id.to_string(),
            name: experiment.name,
            artifact_location: experiment.artifact_location,
        }))
    }

    async fn create_run(&self, request: Request<proto::CreateRunRequest>) -> Answer<proto::Run> {
        let request = request.into_inner();
        let experiment_id = filled(request.experiment_id).map_or(Ok(0), |id| experiment_id(&id))?;
        let run = NewRun {
            run_id: filled(request.run_id),
            experiment_id,
            run_name: filled(request.run_name),
            user_id: request.user_id,
            start_time: if request.start_time == 0 { model::now() } else { request.start_time },
            tags: pairs_from_proto(request.tags),
            artifact_uri: filled(request.artifact_uri),
            // These are the runs of jobs, whose metrics are read as they arrive.
            followed: true,
        };
        Ok(Response::new(run_to_proto(self.store().create_run(run).await?)))
    }

    async fn get_run(&self, request: Request<proto::GetRunRequest>) -> Answer<proto::Run> {
        let run_id = required("run_id", request.into_inner().run_id)?;
        Ok(Response::new(run_to_proto(self.store().run(run_id).await?)))
    }

    async fn update_run(&self, request: Request<proto::UpdateRunRequest>) -> Answer<proto::Run> {
        let request = request.into_inner();
        let run_id = required("run_id", request.run_id)?;
        let update = RunUpdate {
            status: status_from_proto(request.status)?,
            end_time: request.end_time,
            run_name: filled(request.run_name),
        };
        self.store().update_run(run_id.clone(), update).await?;
        Ok(Response::new(run_to_proto(self.store().run(run_id).await?)))
    }

    async fn log_batch(&self, request: Request<proto::LogBatchRequest>) -> Answer<proto::LogBatchResponse> {
        let request = request.into_inner();
        let run_id = required("run_id", request.run_id)?;
        let metric = |point: proto::MetricPoint| {
            let proto::MetricPoint { key, value, step, timestamp } = point;
            Metric { key: key.into(), value, timestamp, step }
        };
        let batch = Batch {
            metrics: request.metrics.into_iter().map(metric).collect(),
            params: pairs_from_proto(request.params),
            tags: pairs_from_proto(request.tags),
        };
        self.store().log_batch(run_id, batch, false).await?;
        Ok(Response::new(proto::LogBatchResponse {}))
    }

    async fn read_metrics(&self, request: Request<proto::ReadMetricsRequest>) -> Answer<proto::ReadMetricsResponse> {
        let request = request.into_inner();
        let run_id = required("run_id", request.run_id)?;
        let tail = self.store().read_metrics(run_id, filled(request.key), request.after).await?;
        let metrics = tail.metrics.into_iter().map(metric_to_proto).collect();
        Ok(Response::new(proto::ReadMetricsResponse { metrics, position: tail.position }))
    }

    async fn search_runs(&self, request: Request<proto::SearchRunsRequest>) -> Answer<proto::SearchRunsResponse> {
        let request = request.into_inner();
        let search = RunSearch {
            experiment_ids: request.experiment_ids.iter().map(|id| experiment_id(id)).collect::<Result<_, _>>()?,
            filter: request.filter,
            view: ViewType::ActiveOnly,
            max_results: if request.page_size == 0 { 1000 } else { request.page_size.into() },
            order_by: request.order_by,
            page_token: filled(request.page_token),
        };
        let page = self.store().search_runs(search).await?;
        let runs = page.items.into_iter().map(run_to_proto).collect();
        Ok(Response::new(proto::SearchRunsResponse { runs, next_page_token: page.next.unwrap_or_default() }))
    }

    async fn find_run(&self, request: Request<proto::FindRunRequest>) -> Answer<proto::Run> {
        let request = request.into_inner();
        let run_key = required("run_key", request.run_key)?;
        let experiment = filled(request.experiment_id).map(|id| experiment_id(&id)).transpose()?;
        Ok(Response::new(run_to_proto(self.store().find_run(run_key, experiment).await?)))
    }
}
