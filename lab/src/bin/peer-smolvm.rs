//! `peer-smolvm SOCKET`: smolvm-network as published, behind a listening Unix stream socket.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use smolvm_network::{BoundPublishedPorts, EgressPolicy, GuestNetworkConfig, start_virtio_network};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: peer-smolvm SOCKET")?;
    let (stream, _) = UnixListener::bind(path)?.accept()?;
    let runtime = start_virtio_network(
        OwnedFd::from(stream).into(),
        GuestNetworkConfig::default(),
        BoundPublishedPorts::bind(&[])?,
        EgressPolicy::unrestricted(),
        None,
    )?;
    runtime.block_until_shutdown();
    Ok(())
}
