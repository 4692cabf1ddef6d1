//! Studies on their way out and in: one JSON document, in pieces.

use std::sync::Arc;

use quintet_proto::v1::StudyPiece;
use runtime_core::status::{self, ErrorReason};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::Status;

use crate::{
    study::{Study, Trial},
    view::export::{read_json, to_json},
};

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces on their way.
const AHEAD: usize = 4;
/// The largest document, in bytes: some million trials.
const MOST: usize = 1 << 30;

/// The document of a study.
pub(crate) fn export(study: Study, trials: Vec<Arc<Trial>>) -> ReceiverStream<Result<StudyPiece, Status>> {
    let (pieces, stream) = tokio::sync::mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let text = to_json(&study, &trials).to_string();
        for piece in text.as_bytes().chunks(PIECE) {
            // Nobody is there any more: the rest is not wanted.
            if pieces.blocking_send(Ok(StudyPiece { data: piece.to_vec() })).is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

/// Reads a document.
///
/// # Errors
/// The stream's; `RESOURCE_EXHAUSTED` when it is too long; `INVALID_ARGUMENT` with the place when it is no study.
pub(crate) async fn read(
    mut pieces: impl Stream<Item = Result<StudyPiece, Status>> + Unpin,
) -> Result<(Study, Vec<Trial>), Status> {
    let mut text = Vec::new();
    while let Some(piece) = pieces.next().await {
        text.extend_from_slice(&piece?.data);
        if text.len() > MOST {
            let problem = format!("the document is longer than {MOST} bytes");
            return Err(status::resource_exhausted(ErrorReason::TooLarge, "study", problem));
        }
    }
    let parsed = tokio::task::spawn_blocking(move || {
        let document =
            serde_json::from_slice(&text).map_err(|error| status::invalid_field("data", error.to_string()))?;
        read_json(&document).map_err(|error| status::invalid_field(error.place, error.problem))
    });
    parsed.await.map_err(|error| status::internal("study", &error))?
}
