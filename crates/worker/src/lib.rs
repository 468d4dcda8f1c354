//! keyreeve on Cloudflare Workers: the shared core behind the platform's events and bindings.
//!
//! ```text
//! request -> isolate: site -> follower: own memory -> caches -> the credential's Durable Object: a node that mints
//! ```
//! - [`host`], [`fetch`], [`secrets`], [`engine`]: the ports of the core over what the platform has
//! - [`rpc`]: what other Workers call; `now`: the answers that need no waiting
//! - `ground`: from the configuration in the bundle to parts; `front`: an isolate; `object`: the Durable Object;
//!   `origin`: the way from the one to the other

pub mod engine;
pub mod fetch;
mod front;
mod ground;
pub mod host;
mod js;
mod log;
pub mod now;
mod object;
mod origin;
mod register;
pub mod rpc;
pub mod secrets;
#[cfg(feature = "testing")]
mod testing;
pub mod webcrypto;

use worker::{Context, Env, HttpRequest, Response, ScheduleContext, ScheduledEvent, event};

use host::{Anchor, within};

/// Reads the configuration when the modules are loaded: that is start-up, and no request's CPU.
#[event(start)]
fn start() {
    // What is wrong with it is told to whoever asks first.
    let _ = ground::config();
}

/// Answers one HTTP request of an outside caller or of a service binding.
#[event(fetch)]
async fn fetch(request: HttpRequest, env: Env, context: Context) -> worker::Result<Response> {
    log::install();
    #[cfg(feature = "testing")]
    if let Some(answer) = testing::misbehave(&request, &env, &context).await {
        return answer;
    }
    within(Anchor::of_event(&context), front::answer(request, env)).await
}

/// The cron event: credentials that are kept without demand are looked after.
#[event(scheduled)]
async fn scheduled(_event: ScheduledEvent, env: Env, _context: ScheduleContext) {
    log::install();
    if let Err(sentence) = front::wake(env).await {
        worker::console_error!("{sentence}");
    }
}
