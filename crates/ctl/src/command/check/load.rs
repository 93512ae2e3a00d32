//! Puts by many clients, each of which waits for the answer to one before it sends the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use retcd_client::Client;
use retcd_proto::etcdserverpb::PutRequest;
use tokio::sync::{Mutex, mpsc};

use super::super::context::Context;
use crate::cli::Exit;
use crate::print::print_line;

/// Clients with a connection each.
///
/// # Errors
/// As [`Context::client`].
pub(super) async fn clients(context: &Context, count: usize) -> Result<Vec<Client>, Exit> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(context.client().await?);
    }
    Ok(clients)
}

/// Puts with keys of one length and values of another, which are zeros.
pub(super) struct Puts {
    prefix: String,
    /// What follows the prefix: a random number, and what is left of longer ones before.
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Puts {
    pub(super) fn new(prefix: &str, name_bytes: usize, value_bytes: usize) -> Puts {
        Puts {
            prefix: prefix.to_owned(),
            name: vec![0; name_bytes],
            value: vec![0; value_bytes],
        }
    }

    pub(super) fn next(&mut self) -> PutRequest {
        // Of 63 bits; as a signed number of variable length it has one bit more.
        let mut rest = fastrand::u64(..i64::MAX as u64) << 1;
        for byte in &mut self.name {
            *byte = rest as u8 & 0x7f;
            rest >>= 7;
            if rest == 0 {
                break;
            }
            *byte |= 0x80;
        }
        PutRequest {
            key: [self.prefix.as_bytes(), &self.name].concat().into(),
            value: self.value.clone().into(),
            ..PutRequest::default()
        }
    }
}

/// Has the clients send what `produce` gives them, until it drops the sender and all is answered.
/// `answered` is told the number of answers so far.
pub(super) async fn send<P: Future<Output = ()>>(
    clients: &[Client],
    produce: impl FnOnce(mpsc::Sender<PutRequest>) -> P,
    mut answered: impl FnMut(usize),
) -> Results {
    let started = Instant::now();
    let (requests, queue) = mpsc::channel(clients.len());
    let (answers, mut answer) = mpsc::unbounded_channel();
    let queue = Arc::new(Mutex::new(queue));
    for client in clients {
        let client = client.clone();
        let (queue, answers) = (Arc::clone(&queue), answers.clone());
        tokio::spawn(async move {
            loop {
                let request = queue.lock().await.recv().await;
                let Some(request) = request else { return };
                let asked = Instant::now();
                let result = client.put(request).await;
                let took = asked.elapsed();
                // The receiver lives until all clients have ended.
                let _ = answers.send(result.map(|_| took).map_err(|error| error.to_string()));
            }
        });
    }
    drop(answers);
    let mut results = Results::default();
    let collect = async {
        let mut count = 0;
        while let Some(result) = answer.recv().await {
            count += 1;
            answered(count);
            match result {
                Ok(took) => results.times.add(took),
                Err(error) => *results.errors.entry(error).or_default() += 1,
            }
        }
    };
    tokio::join!(produce(requests), collect);
    results.whole = started.elapsed();
    results
}

/// What a load has come to.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// How long the puts took that succeeded.
    times: Times,
    /// How often each error came.
    errors: BTreeMap<String, u64>,
    /// How long all took together.
    whole: Duration,
}

/// What many spans of time have in common, however many they are. Mean and squares are kept as
/// Welford does, which loses no digits.
#[derive(Debug, Default)]
struct Times {
    count: u64,
    slowest_s: f64,
    mean_s: f64,
    /// The sum of the squares of the distances from the mean.
    squares: f64,
}

impl Times {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.count += 1;
        self.slowest_s = self.slowest_s.max(seconds);
        let before = seconds - self.mean_s;
        self.mean_s += before / self.count as f64;
        self.squares += before * (seconds - self.mean_s);
    }
}

impl Results {
    /// Prints the errors; whether there were none.
    pub(super) fn print_errors(&self) -> Result<bool, Exit> {
        if self.errors.is_empty() {
            return Ok(true);
        }
        print_line("FAIL: too many errors")?;
        for (error, count) in &self.errors {
            print_line(&format!("FAIL: ERROR({error}) -> {count}"))?;
        }
        Ok(false)
    }

    pub(super) fn per_second(&self) -> f64 {
        self.times.count as f64 / self.whole.as_secs_f64()
    }

    /// The longest, in seconds.
    pub(super) fn slowest_s(&self) -> f64 {
        self.times.slowest_s
    }

    /// The standard deviation, in seconds.
    pub(super) fn deviation_s(&self) -> f64 {
        (self.times.squares / self.times.count.max(1) as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_those_of_the_puts_that_succeeded() {
        let mut times = Times::default();
        for seconds in [1, 3, 5, 7] {
            times.add(Duration::from_secs(seconds));
        }
        let results = Results {
            times,
            errors: [("x".to_owned(), 2)].into(),
            whole: Duration::from_secs(8),
        };
        assert_eq!(results.per_second(), 0.5);
        assert_eq!(results.slowest_s(), 7.0);
        assert!((results.deviation_s() - 5f64.sqrt()).abs() < 1e-12);
        let none = Results::default();
        assert_eq!((none.slowest_s(), none.deviation_s()), (0.0, 0.0));
    }

    #[test]
    fn keys_have_one_length_and_begin_with_a_number() {
        let mut puts = Puts::new("p/", 256, 8);
        let (first, second) = (puts.next(), puts.next());
        assert_eq!((first.key.len(), first.value.len()), (258, 8));
        assert_ne!(first.key, second.key);
        assert_eq!(&first.key[12..], &[0; 246]);
        // It is not negative: the lowest bit says so.
        assert_eq!(first.key[2] & 1, 0);
    }
}
