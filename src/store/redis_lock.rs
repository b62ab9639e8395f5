//! One server on one Redis: the key `provision:server` names the one that
//! writes, for [`EXPIRY`] at a time.
//!
//! The same server that was killed and started again finds its own name and
//! takes it back at once; another one waits until the name has expired. A
//! commit looks at the name too (see `redis`), so that a server that was cut
//! off and has been replaced can write nothing any more.

use super::{Claim, Owner, StoreError};
use redis::aio::ConnectionManager;
use redis::{RedisError, Script};
use std::sync::LazyLock;
use std::time::Duration;

/// The key.
pub(super) const LOCK: &str = "provision:server";
/// How long a server that was killed is waited for.
pub(super) const EXPIRY: Duration = Duration::from_secs(30);

/// ARGV: our line, the part of it that a restart keeps, milliseconds.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local have = redis.call('GET', KEYS[1])
if not have or string.sub(have, 1, #ARGV[2]) == ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
  return {'', 0}
end
return {have, redis.call('PTTL', KEYS[1])}
",
    )
});

static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end")
});

pub(super) async fn claim(mut conn: ConnectionManager, owner: &Owner) -> Result<Claim, RedisError> {
    let millis = u64::try_from(EXPIRY.as_millis()).unwrap_or(30_000);
    let mut call = TAKE.key(LOCK);
    call.arg(owner.line()).arg(owner.stays()).arg(millis);
    let (by, left): (String, i64) = call.invoke_async(&mut conn).await?;
    if by.is_empty() {
        return Ok(Claim::Ours);
    }
    // Without an expiry somebody made the key by hand: it does not go away.
    let left = u64::try_from(left).ok().map(Duration::from_millis);
    Ok(Claim::Held { by, left })
}

pub(super) async fn release(mut conn: ConnectionManager, owner: &Owner) -> Result<(), RedisError> {
    GIVE_BACK.key(LOCK).arg(owner.line()).invoke_async(&mut conn).await
}

/// A commit that found another server's name.
pub(super) fn taken(store: &str, by: &str) -> StoreError {
    StoreError::Unavailable {
        what: store.to_owned(),
        why: format!("{by} has taken it over; this server must be stopped"),
    }
}
