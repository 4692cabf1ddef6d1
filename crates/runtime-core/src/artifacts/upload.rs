//! Uploads in parts: several on their way at a time, and aborted as a whole when anything fails.
use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, Result, UploadPart, path::Path as ObjectPath};

/// Size of every part but the last, in bytes; what is not longer is put at once.
pub(super) const PART: usize = 8 << 20;
/// Parts of one upload that are on their way at a time.
const IN_FLIGHT: usize = 4;

/// One upload. The object appears when it is finished, never before.
pub(super) struct Parts {
    upload: Box<dyn MultipartUpload>,
    in_flight: FuturesUnordered<UploadPart>,
}

impl Parts {
    pub(super) async fn begin(store: &dyn ObjectStore, target: &ObjectPath) -> Result<Self> {
        let upload = store.put_multipart(target).await?;
        Ok(Self { upload, in_flight: FuturesUnordered::new() })
    }

    /// Sends the next part; waits when enough are on their way.
    pub(super) async fn push(&mut self, part: Bytes) -> Result<()> {
        while self.in_flight.len() >= IN_FLIGHT {
            if let Some(sent) = self.in_flight.next().await {
                sent?;
            }
        }
        self.in_flight.push(self.upload.put_part(part.into()));
        Ok(())
    }

    /// Waits for the parts and makes the object; aborts when that fails.
    pub(super) async fn finish(mut self) -> Result<()> {
        let outcome = async {
            while let Some(sent) = self.in_flight.next().await {
                sent?;
            }
            self.upload.complete().await
        };
        match outcome.await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    /// Gives the upload up; that parts stay behind when even this fails is the store's to clean.
    ///
    /// Parts on their way are waited for: on S3 one that arrives after the abort stays, and on a disk it holds its space.
    pub(super) async fn abort(mut self) {
        while self.in_flight.next().await.is_some() {}
        if let Err(error) = self.upload.abort().await {
            tracing::debug!(%error, "cannot abort an upload");
        }
    }
}
