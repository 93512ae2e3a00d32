//! `alarm`: lists and disarms alarms.

use retcd_client::{Client, Error};
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::{AlarmRequest, AlarmResponse};

use super::context::{self, Context, failed};
use crate::cli::{Command, Exit, Invocation};
use crate::print::Reply;

/// The `alarm` command.
pub(crate) fn command() -> Command {
    Command::group(
        "alarm",
        "List and disarm alarms",
        vec![
            Command::new("disarm", "", "Disarm all alarms", disarm),
            Command::new("list", "", "List all alarms", list),
        ],
    )
}

/// Lists the active alarms.
///
/// # Errors
/// The request failed.
pub(crate) async fn active(client: &Client) -> Result<AlarmResponse, Error> {
    let request = AlarmRequest {
        action: AlarmAction::Get.into(),
        ..AlarmRequest::default()
    };
    client.alarm(request).await
}

/// Disarms every active alarm. The response lists them; it has no header, because it is assembled
/// here.
async fn disarm_all(client: &Client) -> Result<AlarmResponse, Error> {
    let mut disarmed = AlarmResponse::default();
    for alarm in active(client).await?.alarms {
        let request = AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        disarmed.alarms.extend(client.alarm(request).await?.alarms);
    }
    Ok(disarmed)
}

fn disarm(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    if !invocation.args.is_empty() {
        return Err(Exit::bad_args("alarm disarm command accepts no arguments"));
    }
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        let disarmed = disarm_all(&client).await.map_err(failed)?;
        context.print(&Reply::Alarm(&disarmed))
    })
}

fn list(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    if !invocation.args.is_empty() {
        return Err(Exit::bad_args("alarm list command accepts no arguments"));
    }
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        let alarms = active(&client).await.map_err(failed)?;
        context.print(&Reply::Alarm(&alarms))
    })
}
