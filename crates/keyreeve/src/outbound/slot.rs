//! Slot mode: every node computes the token of the slot, and the next one in good time. No store.

use std::sync::{Arc, OnceLock};

use keyreeve_core::lifecycle::Order;
use keyreeve_core::operator::Status;
use keyreeve_core::record::Credential;
use keyreeve_core::schedule::{Slot, Slots};
use keyreeve_core::time::Moment;
use keyreeve_core::view::{Held, View};

use super::Inner;
use super::cell::{Cell, Issued, Snapshot};
use crate::error::{Error, ErrorKind};
use crate::source::MintError;

/// A local signature gets this long, in milliseconds.
const SIGN_MS: u64 = 5000;

/// Fills the snapshot with the token of this slot and, near its end, of the next.
pub(super) async fn fill(inner: &Arc<Inner>, cell: &Arc<Cell>, slots: &Slots) {
    let now = inner.host.now();
    // INVARIANT: a node never goes back to an earlier slot, wherever its clock goes.
    let serving = cell.snapshot.load().as_ref().map_or(0, |snapshot| snapshot.view.serving_generation(now));
    let this = slots.numbered(slots.at(now.wall).number.max(serving));
    let ready_at = this.ends_at.minus(slots.ready_ms());
    let is_near_end = now.wall >= ready_at;
    let result = fill_from(inner, cell, slots, this, is_near_end, now).await;
    let for_ms = match &result {
        Err(_) => 1000,
        Ok(()) if is_near_end => this.ends_at.since(now.wall).max(1),
        Ok(()) => ready_at.since(now.wall).max(1),
    };
    let after = inner.host.now();
    let error = result.err().map(|error| {
        let text = format!("`{}` could not be signed: {}", cell.name, error.message);
        tracing::error!(credential = %cell.name, "{text}");
        Error::new(ErrorKind::of_fault(error.class), text).after(for_ms)
    });
    let mut state = cell.lock();
    state.is_asked_again = false;
    state.status = Some(if error.is_some() { Status::BackingOff } else { Status::Ready });
    state.finish(after.mono, error, true);
    drop(state);
    inner.wake(cell, after.mono.plus(for_ms));
}

async fn fill_from(
    inner: &Inner,
    cell: &Cell,
    slots: &Slots,
    this: Slot,
    is_near_end: bool,
    now: Moment,
) -> Result<(), MintError> {
    let known = cell.snapshot.load_full();
    let (current, current_issued) = sign(inner, cell, known.as_deref(), this, now).await?;
    let next = if is_near_end {
        Some(sign(inner, cell, known.as_deref(), slots.numbered(this.number.saturating_add(1)), now).await?)
    } else {
        None
    };
    let (next, next_issued) = next.unzip();
    let is_new = known.as_ref().is_none_or(|known| known.view.newest_generation() < this.number);
    let view = View { current: Some(current), next };
    cell.snapshot.store(Some(Arc::new(Snapshot::new(&cell.plan, view, Some(current_issued), next_issued))));
    if is_new {
        inner.notify(&cell.name, this.number, "adopted", "");
    }
    Ok(())
}

async fn sign(
    inner: &Inner,
    cell: &Cell,
    known: Option<&Snapshot>,
    slot: Slot,
    now: Moment,
) -> Result<(Held, Arc<Issued>), MintError> {
    let credential = Credential {
        generation: slot.number,
        sealed: Vec::new(),
        issued_at: slot.issued_at,
        expires_at: slot.expires_at,
        refresh_at: slot.ends_at,
        use_from: slot.starts_at,
    };
    let held = Held::new(&credential, now);
    if let Some(issued) = known.and_then(|known| known.issued(slot.number)) {
        return Ok((held, Arc::clone(issued)));
    }
    let by = now.mono.plus(SIGN_MS);
    let order = Order {
        generation: slot.number,
        epoch: 0,
        issued_at: slot.issued_at,
        expires_at: slot.expires_at,
        is_replay: true,
        send_by: by,
        answer_by: by,
    };
    let minting = cell.source.mint(&order, &inner.idempotency_key(cell, &order)).await?;
    let issued = Issued {
        generation: slot.number,
        material: minting.material,
        issued_at: slot.issued_at,
        expires_at: minting.expires_at,
        refresh_at: slot.ends_at,
        rendered: OnceLock::new(),
    };
    Ok((held, Arc::new(issued)))
}
