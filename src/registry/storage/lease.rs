//! The right to collect garbage, held by one process at a time.

use futures::future::BoxFuture;

/// Held until [`Lease::end`]. Dropped without that it ends in the background,
/// or, when the runtime stops as well, by the storage's own expiry.
pub struct Lease {
    /// What is let go by being dropped: a locked file.
    _held: Option<Box<dyn Send>>,
    /// What must be done to let it go.
    end: Option<BoxFuture<'static, ()>>,
}

impl Lease {
    /// One that ends when `held` is dropped.
    pub fn held(held: impl Send + 'static) -> Self {
        Self { _held: Some(Box::new(held)), end: None }
    }

    /// One that ends when `end` is done.
    pub fn until(end: BoxFuture<'static, ()>) -> Self {
        Self { _held: None, end: Some(end) }
    }

    /// Gives it back; the next one can have it when this returns.
    pub async fn end(mut self) {
        if let Some(f) = self.end.take() {
            f.await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(f) = self.end.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(f);
        }
    }
}
