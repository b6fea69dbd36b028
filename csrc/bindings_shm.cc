// The Python face of csrc/shm: the layout of rollouts, and the region that a rank's processes share.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "nethack/conditions.h"
#include "nethack/game.h"
#include "shm/futex.h"
#include "shm/layout.h"
#include "shm/region.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using pbm::nethack::GameSettings;
using pbm::shm::Owner;
using pbm::shm::Region;
using pbm::shm::RolloutLayout;

RolloutLayout make_layout(std::size_t unroll, std::size_t games, std::size_t actions, std::size_t experts,
                          std::size_t state, std::size_t crop, bool store_glyphs, std::size_t max_episode_steps,
                          bool store_inventory, bool store_reward_terms) {
  return RolloutLayout({.unroll = unroll,
                        .games = games,
                        .actions = actions,
                        .experts = experts,
                        .state = state,
                        .crop = crop,
                        .condition_words = pbm::nethack::condition_words(),
                        .store_glyphs = store_glyphs,
                        .store_inventory = store_inventory,
                        .max_episode_steps = max_episode_steps,
                        .store_reward_terms = store_reward_terms});
}

// (name, dtype, shape, offset) of every field.
py::list layout_fields(const RolloutLayout& layout) {
  py::list fields;
  for (const pbm::shm::Field& field : layout.fields()) {
    fields.append(
        py::make_tuple(field.name, pbm::shm::dtype_name(field.dtype), py::tuple(py::cast(field.shape)), field.offset));
  }
  return fields;
}

Region make_region(const RolloutLayout& layout, std::size_t slots, std::size_t actors, std::size_t groups_per_actor,
                   std::uint64_t run_seed, const GameSettings& game) {
  return Region({layout.shape(), slots, actors, groups_per_actor, run_seed}, game);
}

py::array slot_view(py::object self, std::size_t index) {
  auto& region = self.cast<Region&>();
  return py::array_t<std::uint8_t>(static_cast<py::ssize_t>(region.layout().slot_bytes()), region.slot(index), self);
}

py::array states_view(py::object self, std::size_t group) {
  auto& region = self.cast<Region&>();
  const auto& shape = region.spec().rollout;
  return py::array_t<float>(
      {py::ssize_t{2}, static_cast<py::ssize_t>(shape.games), static_cast<py::ssize_t>(shape.state)},
      region.states(group), self);
}

void set_control(Region& region, std::int32_t phase, std::int32_t routing, double temperature) {
  auto& control = region.control();
  control.phase.store(phase);
  control.routing.store(routing);
  control.temperature.store(temperature);
}

py::dict control_dict(Region& region) {
  const auto& control = region.control();
  return py::dict("phase"_a = control.phase.load(), "routing"_a = control.routing.load(),
                  "temperature"_a = control.temperature.load(), "paused"_a = control.paused.load() != 0,
                  "stopped"_a = control.stopped.load() != 0);
}

// Seconds of work so far: of all actors, and of the policy.
py::tuple busy_seconds(Region& region) {
  double actors = 0.0;
  for (std::size_t i = 0; i < region.spec().actors; ++i) {
    actors += 1e-9 * static_cast<double>(region.actor(i).busy_nanoseconds.load());
  }
  return py::make_tuple(actors, 1e-9 * static_cast<double>(region.control().policy_busy_nanoseconds.load()));
}

void add_policy_busy(Region& region, double seconds) {
  region.control().policy_busy_nanoseconds.fetch_add(static_cast<std::uint64_t>(seconds * 1e9));
}

// How many games NetHack gave up in an actor, and why the last of them; the reason is written before it is counted.
py::tuple fatal_games(Region& region, std::size_t actor) {
  const auto& block = region.actor(actor);
  const std::uint32_t count = block.fatal_games.load(std::memory_order_acquire);
  return py::make_tuple(count, std::string(block.last_fatal_reason.data()));
}

// Sleeps until a group waits for the policy, the run stops, or the time is up.
void wait_requests(Region& region, int timeout_ms) {
  const py::gil_scoped_release release;
  const std::uint32_t seen = region.bells().requests.load(std::memory_order_acquire);
  if (!region.requests(1).empty() || region.control().stopped.load()) return;
  pbm::shm::futex_wait(region.bells().requests, seen, timeout_ms);
}

// Sleeps until `count` slots wait for the learner (then they are its own), or a delivery came, or the time is up.
std::vector<std::size_t> wait_delivered(Region& region, std::size_t count, int timeout_ms) {
  const py::gil_scoped_release release;
  const std::uint32_t seen = region.bells().deliveries.load(std::memory_order_acquire);
  auto taken = region.take_delivered(count);
  if (!taken.empty() || count == 0) return taken;
  pbm::shm::futex_wait(region.bells().deliveries, seen, timeout_ms);
  return region.take_delivered(count);
}

void bind_layout(py::module_& m) {
  py::class_<RolloutLayout>(m, "RolloutLayout")
      .def(py::init(&make_layout), py::kw_only(), "unroll"_a, "games"_a, "actions"_a, "experts"_a, "state"_a, "crop"_a,
           "store_glyphs"_a, "max_episode_steps"_a, "store_inventory"_a = false, "store_reward_terms"_a = false)
      .def_property_readonly("fields", &layout_fields)
      .def_property_readonly("slot_bytes", &RolloutLayout::slot_bytes)
      .def_property_readonly("checksum", &RolloutLayout::checksum);
}

void bind_constants(py::module_& m) {
  m.attr("OWNER_FREE") = static_cast<int>(Owner::kFree);
  m.attr("OWNER_DELIVERED") = static_cast<int>(Owner::kDelivered);
  m.attr("OWNER_LEARNER") = static_cast<int>(Owner::kLearner);
  m.attr("OWNER_FIRST_GROUP") = static_cast<int>(Owner::kFirstGroup);
  m.attr("TURN_ACTOR") = static_cast<int>(pbm::shm::Whose::kActor);
  m.attr("TURN_POLICY") = static_cast<int>(pbm::shm::Whose::kPolicy);
}

// Slots and who owns them.
void bind_slots(py::class_<Region>& region) {
  region.def("__len__", [](const Region& self) { return self.spec().slots; })
      .def("slot", &slot_view, "index"_a)
      .def("state",
           [](Region& self, std::size_t index) {
             const auto state = pbm::shm::load(self.header(index));
             return py::make_tuple(static_cast<int>(state.owner), state.generation, state.sequence);
           })
      .def("hand_over",
           [](Region& self, std::size_t index, int from, int to) {
             return pbm::shm::hand_over(self.header(index), static_cast<Owner>(from), static_cast<Owner>(to));
           })
      .def("take_back", [](Region& self, std::size_t index,
                           int dead) { return pbm::shm::take_back(self.header(index), static_cast<Owner>(dead)); })
      .def("take_free", [](Region& self, int owner) { return self.take_free(static_cast<Owner>(owner)); })
      .def("deliver",
           [](Region& self, std::size_t index, int owner) { return self.deliver(index, static_cast<Owner>(owner)); })
      .def("take_delivered", &Region::take_delivered, "count"_a)
      .def("wait_delivered", &wait_delivered, "count"_a, "timeout_ms"_a)
      .def("give_back", &Region::give_back, "slot"_a)
      .def("take_back_actor", &Region::take_back_actor, "actor"_a);
}

// Groups and whose turn it is with them.
void bind_turns(py::module_& m, py::class_<Region>& region) {
  py::class_<Region::Request>(m, "Request")
      .def_readonly("group", &Region::Request::group)
      .def_readonly("slot", &Region::Request::slot)
      .def_readonly("step", &Region::Request::step)
      .def_readonly("answers", &Region::Request::answers);
  region.def("states", &states_view, "group"_a)
      .def("turn",
           [](Region& self, std::size_t group) {
             const auto turn = pbm::shm::load(self.group(group));
             return py::make_tuple(static_cast<int>(turn.whose), turn.answers, turn.generation);
           })
      .def("request", &Region::request)
      .def("requests", &Region::requests, "limit"_a, "first"_a = 0)
      .def("wait_requests", &wait_requests, "timeout_ms"_a)
      .def("answer", &Region::answer, "request"_a);
}

// What the learner tells everybody, and what the others tell of themselves.
void bind_control(py::class_<Region>& region) {
  region.def_property_readonly("control", &control_dict)
      .def("set_control", &set_control, "phase"_a, "routing"_a, "temperature"_a)
      .def("pause",
           [](Region& self, bool on) {
             self.control().paused.store(on);
             self.wake_everybody();
           })
      .def("stop",
           [](Region& self) {
             self.control().stopped.store(1);
             self.wake_everybody();
           })
      .def("actor_has_work", &Region::actor_has_work, "actor"_a)
      .def("busy_seconds", &busy_seconds)
      .def("add_policy_busy", &add_policy_busy, "seconds"_a)
      .def_property_readonly("answers", [](Region& self) { return self.control().answers.load(); })
      .def("heartbeat", [](Region& self, std::size_t actor) { return self.actor(actor).heartbeat.load(); })
      .def("fatal_games", &fatal_games);
}

}  // namespace

void bind_shm(py::module_& m) {
  bind_layout(m);
  bind_constants(m);
  py::class_<Region> region(m, "Region");
  region
      .def(py::init(&make_region), "layout"_a, "slots"_a, "actors"_a = 1, "groups_per_actor"_a = 1, "run_seed"_a = 0,
           "game"_a = GameSettings{})
      .def_static("attach", &Region::attach, "fd"_a)
      .def_property_readonly("layout", &Region::layout)
      .def_property_readonly("fd", &Region::fd)
      .def_property_readonly("actors", [](const Region& self) { return self.spec().actors; })
      .def_property_readonly("groups", &Region::groups);
  bind_slots(region);
  bind_turns(m, region);
  bind_control(region);
}
