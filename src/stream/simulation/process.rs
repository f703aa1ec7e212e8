//! The processes of a schedule: each runs a worker or a sink, and makes it again as the role does.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::SimulatedTopic;
use super::consumer::SimulatedConsumer;
use super::database::SimulatedConnection;
use super::director::LAST_SINK;
use super::member::SimulatedClient;
use super::observer::SimulatedOwnerObserver;
use super::rewrites::DecisionCause;
use super::seconds;
use super::stage::Scheduler;
use super::transactions::Transactions;
use super::world::{CONTEXT, Schedule};
use crate::detect::{DetectionSettings, Detector};
use crate::health::{ComponentState, ConditionCode, Health, InputHealth};
use crate::meter::Meter;
use crate::series::{BudgetShare, SeriesBudget, SeriesLimits};
use crate::stop::Stop;
use crate::stream::client::{Fault, Remedy};
use crate::stream::progress::Progress;
use crate::stream::sink::{self, Sink};
use crate::stream::unassigned::VainRebalances;
use crate::stream::worker::{CommitObserver, OffsetTarget, Worker, WorkerEnding, accept_offsets, set_offsets};

/// Parameters of a simulated process.
pub(super) struct SimulatedProcess<'p> {
    pub(super) stage: &'p Arc<Scheduler>,
    pub(super) schedule: &'p Schedule,
    pub(super) actor: usize,
    pub(super) name: &'static str,
    pub(super) stop: &'p Stop,
    pub(super) meter: &'p Meter,
}

/// Runs a process with one worker, as the role does. Returns a message if it ends with an error.
pub(super) fn work(process: &SimulatedProcess<'_>) -> Option<String> {
    let SimulatedProcess { stage, schedule, actor, name, stop, meter } = *process;
    let health = Health::default();
    let input = InputHealth::new(&health);
    let (mut observer, rebalances): (CommitObserver, _) = (Box::new(|_| ()), VainRebalances::default());
    loop {
        let log = SimulatedClient::new(stage.clone(), actor, name, schedule.defect);
        let SeriesLimits { max_series, idle_after } = schedule.bounds[actor % schedule.bounds.len()];
        let policy = schedule.policies[actor % schedule.policies.len()].clone();
        let detector = Detector::new(DetectionSettings { policy, context: CONTEXT, max_series, idle_after });
        let detector = detector.expect("methods");
        let part = health.component(name);
        let parts = (part.clone(), input.clone());
        let worker = Worker::new(log, detector, &schedule.config, parts, meter.clone(), &mut observer, stop);
        let budget = BudgetShare::new(schedule.memory[actor % schedule.memory.len()].map(SeriesBudget::new));
        let worker = worker.with_snapshot_bytes(schedule.snapshot_bytes).with_retry(seconds(5)).within(budget);
        let ending = worker.counting(rebalances.clone()).run();
        if let Some(condition) =
            part.conditions().iter().find(|condition| condition.code == ConditionCode::ReplayShortfall)
        {
            return Some(format!("{name} missed records that are there: {}", condition.message));
        }
        match ending {
            WorkerEnding::Stopped => return None,
            WorkerEnding::Replaced => {
                let inner = stage.look();
                let is_owner = inner.cluster.group.members.get(name).is_some_and(|member| member.actor == actor);
                return is_owner.then(|| format!("{name} gave way although no other member has its name"));
            }
            // An incident or an offset of another program stops a worker.
            WorkerEnding::Failed(_) if stage.look().cluster.transactions.warned.remove(&actor) => return None,
            WorkerEnding::Failed(error) => return Some(format!("{name} failed: {error}")),
            WorkerEnding::Rebuild(_) if stage.look().actors[actor].is_killed => return None,
            WorkerEnding::Rebuild(why) => rebuild(stage, actor, why),
        }
    }
}

/// Runs `anomaly offsets` after an incident, or after another program has set offsets. It sets those back that skip no
/// record, and accepts the others. A failed command is repeated later. Returns a message if the offsets are refused.
pub(super) fn repair(process: &SimulatedProcess<'_>) -> Option<String> {
    let SimulatedProcess { stage, schedule, actor, name, .. } = *process;
    let mut log = SimulatedClient::new(stage.clone(), actor, name, schedule.defect);
    let policy = schedule.policies[0].clone();
    let SeriesLimits { max_series, idle_after } = schedule.bounds[0];
    let detector = Detector::new(DetectionSettings { policy, context: CONTEXT, max_series, idle_after });
    let (detector, settings) = (detector.expect("methods"), &schedule.config);
    let pending = {
        let inner = stage.turn(actor);
        let pending = inner.cluster.rewrites.pending.as_ref();
        pending.map(|pending| (pending.incident, pending.logs.keys().copied().collect::<Vec<_>>(), pending.cut_at))
    };
    if let Some((incident, partitions, cut_at)) = pending {
        let target = if incident == DecisionCause::Cut { OffsetTarget::At(cut_at) } else { OffsetTarget::Earliest };
        // An earlier command may have set some of the partitions.
        let set = |partition| set_offsets(&mut log, settings, &detector, Some(partition), target, |_| Ok(()));
        let done: Result<(), Fault> = match incident {
            DecisionCause::Lost => accept_offsets(&mut log, settings, &detector, |_| Ok(())),
            _ => partitions.into_iter().try_for_each(set),
        };
        return done.err().filter(|fault| fault.remedy == Remedy::Stop).map(|fault| format!("{name} failed: {fault}"));
    }
    let back = {
        let inner = stage.turn(actor);
        let Transactions { foreign, offsets, .. } = &inner.cluster.transactions;
        let is_back = |(partition, judged): &(&i32, &Progress)| offsets[*partition].offset < judged.offset;
        foreign.iter().filter(is_back).map(|(partition, judged)| (*partition, judged.offset)).collect::<Vec<_>>()
    };
    let set = |(partition, offset)| {
        set_offsets(&mut log, settings, &detector, Some(partition), OffsetTarget::At(offset), |_| Ok(()))
    };
    let done: Result<(), Fault> = back.into_iter().try_for_each(set);
    let done = done.and_then(|()| accept_offsets(&mut log, settings, &detector, |_| Ok(())));
    done.err().filter(|fault| fault.remedy == Remedy::Stop).map(|fault| format!("{name} failed: {fault}"))
}

/// Runs a process with a sink. Returns a message if it ends with an error.
pub(super) fn carry(process: &SimulatedProcess<'_>) -> Option<String> {
    let SimulatedProcess { stage, schedule, actor, name, stop, meter } = *process;
    let (part, rebalances) = (Health::default().component(name), VainRebalances::default());
    loop {
        let reader = SimulatedConsumer::new(stage.clone(), actor, name, SimulatedTopic::Anomalies);
        let ledger = SimulatedConnection { stage: stage.clone(), me: actor, defect: schedule.defect };
        let sink = Sink::new(reader, &schedule.config, Box::new(ledger), part.clone(), meter.clone(), stop);
        let observer = SimulatedOwnerObserver { stage: stage.clone(), name };
        match sink.observing(observer, rebalances.clone()).run() {
            _ if stage.look().actors[actor].is_killed => return None,
            _ if stop.is_requested() => {
                // The last sink may still wait for partitions if others have stored everything.
                let is_well = name != LAST_SINK || !matches!(part.state(), ComponentState::Degraded(_));
                return (!is_well).then(|| format!("the last sink ended {:?}, though all is stored", part.state()));
            }
            sink::SinkEnding::Stopped => return Some(format!("{name} stopped by itself")),
            sink::SinkEnding::Rebuild(why) => rebuild(stage, actor, why),
        }
    }
}

fn rebuild(stage: &Scheduler, actor: usize, why: String) {
    let mut inner = stage.turn(actor);
    inner.now += Duration::from_millis(500);
    inner.last_rebuild = why;
}
