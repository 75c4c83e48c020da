//! The listening socket, which can refuse and accept again on the same port, and its accept thread.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::api;
use super::http::Connection;
use super::state::{Shared, Slam};
use crate::threads::{SMALL_STACK_BYTES, Threads};

/// Room for a benchmark's worth of clients that all connect at once.
const BACKLOG: i32 = 1024;
/// An accept thread ends at once when its socket is shut down; this is for a machine under heavy load.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Time for descriptors to come free.
const RETRY: Duration = Duration::from_millis(10);

/// Either listens, or keeps the port bound so that connects are refused and nobody else takes it.
pub(super) struct Listener {
    addr: SocketAddr,
    open: Option<Arc<TcpListener>>,
    reserved: Option<Socket>,
    thread: Threads,
}

impl Listener {
    pub(super) fn open(addr: SocketAddr, shared: &Arc<Shared>) -> io::Result<Self> {
        let mut listener = Self { addr, open: None, reserved: Some(bind(addr)?), thread: Threads::new() };
        listener.reopen(shared)?;
        Ok(listener)
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening, and keeps the port.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        // On Linux this wakes the thread that blocks in accept, and refuses what is queued.
        let woken = SockRef::from(&*open).shutdown(Shutdown::Both);
        drop(open);
        woken?;
        self.thread.join_all(Instant::now() + CLOSE_LIMIT).map_err(io::Error::other)?;
        self.reserved = Some(bind(self.addr)?);
        Ok(())
    }

    /// Listens, if it does not.
    pub(super) fn reopen(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        let Some(socket) = self.reserved.take() else {
            return Ok(());
        };
        socket.listen(BACKLOG)?;
        let open = Arc::new(TcpListener::from(socket));
        self.addr = open.local_addr()?;
        let (listener, shared) = (Arc::clone(&open), Arc::clone(shared));
        self.thread.spawn("sim-accept", SMALL_STACK_BYTES, move || {
            accept_all(&listener, &shared);
        })?;
        self.open = Some(open);
        Ok(())
    }
}

fn bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                if let Err(error) = take(socket, shared) {
                    log::debug!("a connection to the simulated engine was dropped: {error}");
                }
                shared.threads.reap();
            }
            // What accept says once the socket is shut down.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            // A peer that gave up while it was queued, or no descriptor left for now.
            Err(error) => {
                log::debug!("the simulated engine could not accept: {error}");
                let _ = crossbeam_channel::after(RETRY).recv();
            }
        }
    }
}

fn take(socket: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let is_slammed = shared.update(|state| {
        let is_slammed = state.slam == Slam::Everybodys;
        state.totals.connections += u64::from(is_slammed);
        state.totals.slammed += u64::from(is_slammed);
        is_slammed
    });
    if is_slammed {
        // Unread, as a port forwarder closes it that finds nobody behind it.
        return Ok(());
    }
    let connection = Connection::new(socket)?;
    let number = shared.update(|state| {
        let number = state.number();
        state.totals.connections += 1;
        let socket = Arc::downgrade(connection.socket());
        state.connections.insert(number, socket);
        number
    });
    let for_thread = Arc::clone(shared);
    let name = format!("sim-{number}");
    shared.threads.spawn(&name, SMALL_STACK_BYTES, move || {
        let _registered = Registered { shared: &for_thread, number };
        // An error here is a peer that went away.
        if let Err(error) = api::serve(&for_thread, connection, number) {
            log::trace!("a connection to the simulated engine ended: {error}");
        }
    })
}

/// Strikes a connection off, whichever way its thread ends.
struct Registered<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.lock().connections.remove(&self.number);
    }
}
