//! One call of a verb for each request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Service as HttpService, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::store::{SnapshotKind, SnapshotRecord};

use super::failure::{Failure, Outcome};
use super::life::Start;
use super::{Snapshotter, api};

/// The most snapshots in one answer to List.
const LIST_BATCH: usize = 100;

/// The gRPC service.
#[derive(Debug, Clone)]
pub struct Service(Arc<Snapshotter>);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type HttpRequest = http::Request<Body>;
type HttpResponse = http::Response<Body>;

impl Service {
    /// Serves `snapshotter`.
    pub fn new(snapshotter: Arc<Snapshotter>) -> Service {
        Service(snapshotter)
    }
}

impl NamedService for Service {
    const NAME: &'static str = api::SERVICE;
}

impl HttpService<HttpRequest> for Service {
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = Boxed<Result<HttpResponse, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        let snapshotter = Arc::clone(&self.0);
        Box::pin(async move { Ok(route(snapshotter, request).await) })
    }
}

async fn route(snapshotter: Arc<Snapshotter>, request: HttpRequest) -> HttpResponse {
    let verb = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    match verb.as_str() {
        "Prepare" => unary(snapshotter, request, prepare).await,
        "View" => unary(snapshotter, request, view).await,
        "Mounts" => unary(snapshotter, request, mounts).await,
        "Commit" => unary(snapshotter, request, commit).await,
        "Remove" => unary(snapshotter, request, remove).await,
        "Stat" => unary(snapshotter, request, stat).await,
        "Update" => unary(snapshotter, request, update).await,
        "Usage" => unary(snapshotter, request, usage).await,
        "Cleanup" => unary(snapshotter, request, cleanup).await,
        "List" => {
            let mut grpc = Grpc::new(ProstCodec::default());
            grpc.server_streaming(List(snapshotter), request).await
        }
        other => Status::unimplemented(format!("no such verb: {other}")).into_http(),
    }
}

fn prepare(snapshotter: &Snapshotter, request: api::StartRequest) -> Outcome<api::MountsResponse> {
    let mounts = snapshotter.prepare(request.into())?;
    Ok(api::MountsResponse { mounts })
}

fn view(snapshotter: &Snapshotter, request: api::StartRequest) -> Outcome<api::MountsResponse> {
    let mounts = snapshotter.view(request.into())?;
    Ok(api::MountsResponse { mounts })
}

fn mounts(snapshotter: &Snapshotter, request: api::KeyRequest) -> Outcome<api::MountsResponse> {
    let mounts = snapshotter.mounts(&request.key)?;
    Ok(api::MountsResponse { mounts })
}

fn commit(snapshotter: &Snapshotter, request: api::CommitRequest) -> Outcome<api::Empty> {
    snapshotter.commit(&request.name, &request.key, request.labels)?;
    Ok(api::Empty {})
}

fn remove(snapshotter: &Snapshotter, request: api::KeyRequest) -> Outcome<api::Empty> {
    snapshotter.remove(&request.key)?;
    Ok(api::Empty {})
}

fn stat(snapshotter: &Snapshotter, request: api::KeyRequest) -> Outcome<api::InfoResponse> {
    let record = snapshotter.stat(&request.key)?;
    Ok(api::InfoResponse { info: Some(record.into()) })
}

fn update(snapshotter: &Snapshotter, request: api::UpdateRequest) -> Outcome<api::InfoResponse> {
    let info = request.info.ok_or_else(|| Failure::invalid("info is missing"))?;
    let paths = request.update_mask.unwrap_or_default().paths;
    let record = snapshotter.update(&info.name, &info.labels, &paths)?;
    Ok(api::InfoResponse { info: Some(record.into()) })
}

fn usage(snapshotter: &Snapshotter, request: api::KeyRequest) -> Outcome<api::UsageResponse> {
    let usage = snapshotter.usage(&request.key)?;
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(api::UsageResponse { size: number(usage.bytes), inodes: number(usage.inodes) })
}

fn cleanup(snapshotter: &Snapshotter, _: api::CleanupRequest) -> Outcome<api::Empty> {
    snapshotter.cleanup()?;
    Ok(api::Empty {})
}

impl From<api::StartRequest> for Start {
    fn from(request: api::StartRequest) -> Start {
        Start { key: request.key, parent: request.parent, labels: request.labels }
    }
}

impl From<SnapshotRecord> for api::Info {
    fn from(record: SnapshotRecord) -> api::Info {
        let kind = match record.kind {
            SnapshotKind::View => api::Kind::View,
            SnapshotKind::Active => api::Kind::Active,
            SnapshotKind::Committed => api::Kind::Committed,
        };
        api::Info {
            name: record.name,
            parent: record.parent.unwrap_or_default(),
            kind: kind.into(),
            created_at: Some(std::time::SystemTime::from(record.created).into()),
            updated_at: Some(std::time::SystemTime::from(record.updated).into()),
            labels: record.labels,
        }
    }
}

/// A verb with one answer.
struct Unary<Q, A>(Arc<Snapshotter>, fn(&Snapshotter, Q) -> Outcome<A>);

async fn unary<Q, A>(
    snapshotter: Arc<Snapshotter>,
    request: HttpRequest,
    verb: fn(&Snapshotter, Q) -> Outcome<A>,
) -> HttpResponse
where
    Q: prost::Message + std::fmt::Debug + Default + 'static,
    A: prost::Message + 'static,
{
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
    grpc.unary(Unary(snapshotter, verb), request).await
}

impl<Q, A> UnaryService<Q> for Unary<Q, A>
where
    Q: prost::Message + std::fmt::Debug + Default + 'static,
    A: prost::Message + 'static,
{
    type Response = A;
    type Future = Boxed<Result<Response<A>, Status>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let (snapshotter, verb) = (Arc::clone(&self.0), self.1);
        Box::pin(async move {
            let request = request.into_inner();
            tracing::debug!(?request, "asked");
            let answer = in_background(move || verb(&snapshotter, request)).await?;
            Ok(Response::new(answer))
        })
    }
}

/// List, whose answer comes in batches.
struct List(Arc<Snapshotter>);

type Batches = tokio_stream::Iter<std::vec::IntoIter<Result<api::ListResponse, Status>>>;

impl ServerStreamingService<api::ListRequest> for List {
    type Response = api::ListResponse;
    type ResponseStream = Batches;
    type Future = Boxed<Result<Response<Batches>, Status>>;

    fn call(&mut self, request: Request<api::ListRequest>) -> Self::Future {
        let snapshotter = Arc::clone(&self.0);
        Box::pin(async move {
            let filters = request.into_inner().filters;
            let records = in_background(move || snapshotter.list(&filters)).await?;
            let infos: Vec<api::Info> = records.into_iter().map(Into::into).collect();
            let batches: Vec<_> = infos
                .chunks(LIST_BATCH)
                .map(|batch| Ok(api::ListResponse { info: batch.to_vec() }))
                .collect();
            Ok(Response::new(tokio_stream::iter(batches)))
        })
    }
}

/// Verbs wait for disks and for each other: not on a thread that serves requests. One that has
/// begun is finished, also where its client has gone.
async fn in_background<T: Send + 'static>(
    verb: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(verb).await {
        Ok(outcome) => outcome.map_err(|failure| {
            match &failure {
                Failure::Store(error) => tracing::error!(%error, "refused"),
                other => tracing::debug!(reason = %other, "refused"),
            }
            failure.into()
        }),
        Err(error) => {
            tracing::error!(%error, "a verb did not end");
            Err(Status::internal("the snapshotter failed; its log says how"))
        }
    }
}
