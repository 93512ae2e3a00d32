//! Carries connections between clients and servers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;

use super::balance::Balance;
use crate::log::{GoDuration, Text, go_io_error};
use crate::workers::Workers;

/// `--retry-delay` of 0.
const RETRY_DEFAULT: GoDuration = GoDuration(5 * 60 * 1_000_000_000);
/// Pause after an error that is not about a single connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all threads share.
pub(super) struct Gateway {
    balance: Mutex<Balance>,
    retry_delay: GoDuration,
    /// Look up names.
    workers: Workers,
}

impl Gateway {
    pub(super) fn new(balance: Balance, retry_delay: GoDuration, workers: Workers) -> Gateway {
        Gateway {
            balance: Mutex::new(balance),
            retry_delay: match retry_delay.0 {
                ..=0 => RETRY_DEFAULT,
                _ => retry_delay,
            },
            workers,
        }
    }

    pub(super) fn announce(&self) {
        let addresses = self.balance.lock().addresses();
        crate::info!("ready to proxy client requests"; "endpoints" => addresses);
    }

    /// Accepts and carries connections on this thread; one thread also looks after endpoints that
    /// are down. Ends only if the listener cannot be used.
    pub(super) async fn run(self: Arc<Self>, listener: std::net::TcpListener, monitors: bool) {
        if monitors {
            tokio::task::spawn_local(Arc::clone(&self).monitor());
        }
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                crate::error!("stopped accepting connections"; "error" => Text(error));
                return;
            }
        };
        loop {
            match listener.accept().await {
                Ok((client, _)) => {
                    tokio::task::spawn_local(Arc::clone(&self).carry(client));
                }
                Err(error) => {
                    crate::warn!("cannot accept a connection; trying again"; "error" => Text(error));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn carry(self: Arc<Self>, client: TcpStream) {
        let Some(server) = self.connect().await else {
            return;
        };
        // Best effort: they only save time.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (mut client, mut server) = (client, server);
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        // How a direction ended is nobody's business but that of the two who talk.
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        }
    }

    /// A connection to the endpoint whose turn it is, or to another one if it is down; none if all
    /// are.
    async fn connect(&self) -> Option<TcpStream> {
        loop {
            let (at, address) = {
                let mut balance = self.balance.lock();
                let at = balance.pick(|below| fastrand::u32(0..below))?;
                (at, balance.address(at).to_owned())
            };
            match self.dial(&address).await {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    self.balance.lock().set_active(at, false);
                    crate::warn!("deactivated endpoint"; "address" => &address, "interval" => self.retry_delay, "error" => &error);
                }
            }
        }
    }

    /// Tries its addresses in turn.
    async fn dial(&self, address: &str) -> Result<TcpStream, String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let addresses = self.workers.addresses(address).await.unwrap_or_default();
        let mut failure = format!("dial tcp: lookup {host}: no such host");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = dial_error(&address.to_string(), &error),
            }
        }
        Err(failure)
    }

    /// Tries endpoints that are down again and again.
    async fn monitor(self: Arc<Self>) {
        let mut interval = tokio::time::interval(self.retry_delay.std());
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once.
        interval.tick().await;
        loop {
            interval.tick().await;
            let inactive = self.balance.lock().inactive();
            for at in inactive {
                tokio::task::spawn_local(Arc::clone(&self).try_again(at));
            }
        }
    }

    async fn try_again(self: Arc<Self>, at: usize) {
        let address = self.balance.lock().address(at).to_owned();
        match self.dial(&address).await {
            Ok(_) => {
                self.balance.lock().set_active(at, true);
                crate::info!("activated"; "address" => &address);
            }
            Err(error) => {
                crate::warn!("failed to activate endpoint (stay inactive for another interval)";
                    "address" => &address, "interval" => self.retry_delay, "error" => &error);
            }
        }
    }
}

fn dial_error(address: &str, error: &io::Error) -> String {
    format!("dial tcp {address}: connect: {}", go_io_error(error))
}
