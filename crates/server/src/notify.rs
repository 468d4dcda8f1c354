//! Tells systemd where the process stands (`sd_notify(3)`): one datagram to the socket it names.

#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What systemd can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Listening.
    Ready,
    /// Reading the configuration again.
    Reloading,
    /// Finishing.
    Stopping,
}

/// Tells the service supervisor. Without one nothing happens; a failure is no reason to stop serving.
pub(crate) fn tell(state: State) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(path.as_bytes(), state) {
        tracing::warn!("the service supervisor could not be told about {state:?}: {error}");
    }
}

fn send(path: &[u8], state: State) -> std::io::Result<()> {
    let address = match path.split_first() {
        // A leading `@` stands for the abstract namespace, which only Linux has.
        #[cfg(target_os = "linux")]
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let message = match state {
        State::Ready => "READY=1\nSTATUS=serving".to_owned(),
        // `Type=notify-reload` wants the moment of the reload by the monotonic clock.
        State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_usec()),
        State::Stopping => "STOPPING=1\nSTATUS=finishing requests".to_owned(),
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

/// `CLOCK_MONOTONIC` without a system call of our own: on Linux `/proc/uptime` counts from the same start, in 10 ms steps.
fn monotonic_usec() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = uptime.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default();
    (seconds * 1e6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_ready_and_a_reload_with_its_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let supervisor = UnixDatagram::bind(&path).unwrap();
        supervisor.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 256];

        send(path.as_os_str().as_bytes(), State::Ready).unwrap();
        let size = supervisor.recv(&mut buffer).unwrap();
        assert!(buffer[..size].starts_with(b"READY=1\n"));

        send(path.as_os_str().as_bytes(), State::Reloading).unwrap();
        let size = supervisor.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..size]).unwrap();
        let usec: u64 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(usec > 0, "{text}");
    }

    #[test]
    fn an_abstract_socket_is_found() {
        let name = format!("keyreeve-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let supervisor = UnixDatagram::bind_addr(&address).unwrap();
        supervisor.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        send(format!("@{name}").as_bytes(), State::Stopping).unwrap();
        let mut buffer = [0; 64];
        let size = supervisor.recv(&mut buffer).unwrap();
        assert!(buffer[..size].starts_with(b"STOPPING=1"));
    }
}
