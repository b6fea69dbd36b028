// The Python face of the C++ parts; only files named bindings* include pybind11. Exceptions become Python's; the GIL is
// released while games are stepped.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <atomic>

#include "actor/actor.h"
#include "actor/group.h"
#include "nethack/conditions.h"
#include "nethack/game.h"
#include "nethack/tables.h"
#include "shm/layout.h"
#include "shm/region.h"

namespace py = pybind11;
using namespace pybind11::literals;

void bind_envs(py::module_& m);  // bindings_envs.cc

namespace {

using pbm::actor::Actor;
using pbm::actor::Group;
using pbm::actor::Standing;
using pbm::nethack::Game;
using pbm::nethack::GameSettings;
using pbm::nethack::LibraryFile;
using pbm::nethack::Seeds;
using pbm::nethack::StairsMemory;
using pbm::shm::Owner;
using pbm::shm::Region;
using pbm::shm::RolloutLayout;
using pbm::shm::RolloutShape;

// A C++ game and a Python array of the same memory: `owner` keeps it alive.
template <typename T, std::size_t N>
py::array view(const std::array<T, N>& data, std::vector<py::ssize_t> shape, py::handle owner) {
  return py::array_t<T>(std::move(shape), data.data(), owner);
}

py::dict observation_views(py::object self) {
  const auto& seen = self.cast<const Game&>().observation();
  py::dict views;
  views["glyphs"] = view(seen.glyphs, {pbm::nethack::kRows, pbm::nethack::kColumns}, self);
  views["blstats"] = view(seen.blstats, {pbm::nethack::kBlstatsSize}, self);
  views["message"] = view(seen.message, {pbm::nethack::kMessageSize}, self);
  views["program_state"] = view(seen.program_state, {pbm::nethack::kProgramStateSize}, self);
  views["internal"] = view(seen.internal, {pbm::nethack::kInternalSize}, self);
  views["misc"] = view(seen.misc, {pbm::nethack::kMiscSize}, self);
  views["inv_glyphs"] = view(seen.inv_glyphs, {pbm::nethack::kInventorySize}, self);
  views["inv_letters"] = view(seen.inv_letters, {pbm::nethack::kInventorySize}, self);
  views["inv_oclasses"] = view(seen.inv_oclasses, {pbm::nethack::kInventorySize}, self);
  return views;
}

GameSettings game_settings(std::string library, std::string data_directory, std::string options, std::vector<int> keys,
                           const std::string& task, std::int64_t max_episode_steps, const std::string& penalty_mode,
                           double penalty_step, double penalty_time, std::int64_t no_progress_timeout,
                           bool allow_all_yn_questions, bool allow_all_modes, bool spawn_monsters, bool fix_moon_phase,
                           std::optional<std::int64_t> clock) {
  GameSettings settings;
  settings.library = std::move(library);
  settings.data_directory = std::move(data_directory);
  settings.options = std::move(options);
  settings.keys = std::move(keys);
  settings.task = {.kind = pbm::nethack::task_kind(task),
                   .penalty_mode = pbm::nethack::penalty_mode(penalty_mode),
                   .penalty_step = penalty_step,
                   .penalty_time = penalty_time,
                   .max_episode_steps = max_episode_steps,
                   .no_progress_timeout = no_progress_timeout};
  settings.allow_all_yn_questions = allow_all_yn_questions;
  settings.allow_all_modes = allow_all_modes;
  settings.spawn_monsters = spawn_monsters;
  settings.fix_moon_phase = fix_moon_phase;
  settings.clock = clock;
  return settings;
}

// Rows of one array argument of evaluate_conditions, checked against the number of items that a row must have.
template <typename T>
const T* rows(const py::array_t<T, py::array::c_style>& array, py::ssize_t count, py::ssize_t items, const char* name) {
  if (array.ndim() < 1 || array.shape(0) != count || array.size() != count * items) {
    throw py::value_error(std::string(name) + " must hold " + std::to_string(items) + " items a row, " +
                          std::to_string(count) + " rows");
  }
  return array.data();
}

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

py::array_t<std::uint64_t> evaluate_conditions(const Array<std::int16_t>& glyphs, const Array<std::int64_t>& blstats,
                                               const Array<std::uint8_t>& message,
                                               const Array<std::int16_t>& inv_glyphs,
                                               const Array<std::uint8_t>& inv_oclasses,
                                               const Array<std::uint8_t>& inv_letters, const Array<std::int32_t>& misc,
                                               const std::vector<StairsMemory*>& memories) {
  using namespace pbm::nethack;
  const py::ssize_t n = glyphs.ndim() > 0 ? glyphs.shape(0) : 0;
  const ObservationView first{rows(glyphs, n, kMapSize, "glyphs"),
                              rows(blstats, n, kBlstatsSize, "blstats"),
                              rows(message, n, kMessageSize, "message"),
                              rows(inv_glyphs, n, kInventorySize, "inv_glyphs"),
                              rows(inv_oclasses, n, kInventorySize, "inv_oclasses"),
                              rows(inv_letters, n, kInventorySize, "inv_letters"),
                              rows(misc, n, kMiscSize, "misc")};
  if (!memories.empty() && memories.size() != static_cast<std::size_t>(n)) {
    throw py::value_error("memories must be none, or one for each of " + std::to_string(n) + " rows");
  }
  py::array_t<std::uint64_t> bits({n, static_cast<py::ssize_t>(condition_words())});
  std::uint64_t* out = bits.mutable_data();
  for (py::ssize_t i = 0; i < n; ++i) {
    const ObservationView row{first.glyphs + i * kMapSize,
                              first.blstats + i * kBlstatsSize,
                              first.message + i * kMessageSize,
                              first.inv_glyphs + i * kInventorySize,
                              first.inv_oclasses + i * kInventorySize,
                              first.inv_letters + i * kInventorySize,
                              first.misc + i * kMiscSize};
    StairsMemory* const memory = memories.empty() ? nullptr : memories[static_cast<std::size_t>(i)];
    pbm::nethack::evaluate_conditions(row, out + i * static_cast<py::ssize_t>(condition_words()), memory);
  }
  return bits;
}

py::array_t<std::uint64_t> glyph_features() {
  py::array_t<std::uint64_t> features(pbm::nethack::tables::kGlyphCount);
  std::uint64_t* out = features.mutable_data();
  for (const auto& run : pbm::nethack::tables::kGlyphFeatureRuns) out = std::fill_n(out, run.count, run.value);
  return features;
}

template <typename Text>
std::vector<std::string> condition_texts(Text text) {
  std::vector<std::string> texts;
  for (const auto& condition : pbm::nethack::conditions()) texts.emplace_back(text(condition));
  return texts;
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
                  "temperature"_a = control.temperature.load(), "policy_version"_a = control.policy_version.load(),
                  "paused"_a = control.paused.load() != 0, "stopped"_a = control.stopped.load() != 0);
}

// Seconds of work so far: of all actors, and of the policy.
py::tuple busy_seconds(Region& region) {
  double actors = 0.0;
  for (std::size_t i = 0; i < region.spec().actors; ++i) {
    actors += 1e-9 * static_cast<double>(region.actor(i).busy_nanoseconds.load());
  }
  return py::make_tuple(actors, 1e-9 * static_cast<double>(region.control().policy_busy_nanoseconds.load()));
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

void bind_nethack(py::module_& m) {
  py::register_exception<pbm::nethack::FatalGameError>(m, "FatalGameError", PyExc_RuntimeError);
  py::class_<LibraryFile, std::shared_ptr<LibraryFile>>(m, "LibraryFile")
      .def(py::init(
               [](const std::string& path) { return std::const_pointer_cast<LibraryFile>(LibraryFile::open(path)); }),
           "path"_a)
      .def_property_readonly("direct_calls", &LibraryFile::direct_calls);
  py::class_<GameSettings>(m, "GameSettings")
      .def(py::init(&game_settings), py::kw_only(), "library"_a, "data_directory"_a, "options"_a, "keys"_a,
           "task"_a = "NetHackScore", "max_episode_steps"_a = 5000, "penalty_mode"_a = "constant",
           "penalty_step"_a = -0.01, "penalty_time"_a = 0.0, "no_progress_timeout"_a = 10'000,
           "allow_all_yn_questions"_a = false, "allow_all_modes"_a = false, "spawn_monsters"_a = true,
           "fix_moon_phase"_a = false, "clock"_a = py::none());
  py::class_<Game>(m, "Game")
      .def(py::init([](std::shared_ptr<LibraryFile> library, const GameSettings& settings,
                       const std::filesystem::path& directory) {
             return std::make_unique<Game>(std::move(library), settings, directory);
           }),
           "library"_a, "settings"_a, "directory"_a)
      .def(
          "reset",
          [](Game& game, std::uint64_t core, std::uint64_t disp, std::optional<std::uint64_t> lgen) {
            const py::gil_scoped_release release;
            game.reset({core, disp, lgen});
          },
          "core"_a, "disp"_a, "lgen"_a = py::none())
      .def("step",
           [](Game& game, int action) {
             const auto result = game.step(action);
             return py::make_tuple(result.reward, result.terminated, result.truncated);
           })
      .def("observation", &observation_views)
      .def_property_readonly("running", &Game::running)
      .def("episode", [](const Game& game) {
        const auto& e = game.episode();
        return py::dict("score"_a = e.score, "score_after_end"_a = e.score_after_end,
                        "episode_return"_a = e.episode_return, "length"_a = e.length, "depth"_a = e.depth,
                        "turns"_a = e.turns, "gold"_a = e.gold, "how_done"_a = e.how_done, "death"_a = e.death);
      });
  py::class_<StairsMemory>(m, "StairsMemory")
      .def(py::init<>())
      .def("forget", &StairsMemory::forget)
      .def("copy", [](const StairsMemory& memory) { return memory; });
  m.def("glyph_features", &glyph_features);
  m.def("glyph_feature_names", [] {
    const auto& names = pbm::nethack::tables::kFeatureNames;
    return std::vector<std::string>(std::begin(names), std::end(names));
  });
  m.def("condition_names", [] { return condition_texts([](const auto& c) { return c.name; }); });
  m.def("condition_descriptions", [] { return condition_texts([](const auto& c) { return c.description; }); });
  m.def("condition_words", [] { return pbm::nethack::condition_words(); });
  m.def("evaluate_conditions", &evaluate_conditions, "glyphs"_a, "blstats"_a, "message"_a, "inv_glyphs"_a,
        "inv_oclasses"_a, "inv_letters"_a, "misc"_a, "memories"_a = std::vector<StairsMemory*>());
}

void bind_shm(py::module_& m) {
  py::class_<RolloutLayout>(m, "RolloutLayout")
      .def(py::init([](std::size_t unroll, std::size_t games, std::size_t actions, std::size_t experts,
                       std::size_t state, std::size_t crop, bool store_glyphs, std::size_t max_episode_steps,
                       bool store_inventory, bool store_reward_terms) {
             return RolloutLayout(RolloutShape{unroll, games, actions, experts, state, crop,
                                               pbm::nethack::condition_words(), store_glyphs, store_inventory,
                                               max_episode_steps, store_reward_terms});
           }),
           py::kw_only(), "unroll"_a, "games"_a, "actions"_a, "experts"_a, "state"_a, "crop"_a, "store_glyphs"_a,
           "max_episode_steps"_a, "store_inventory"_a = false, "store_reward_terms"_a = false)
      .def_property_readonly("fields",
                             [](const RolloutLayout& layout) {
                               py::list fields;
                               for (const auto& field : layout.fields()) {
                                 fields.append(py::make_tuple(field.name, pbm::shm::dtype_name(field.dtype),
                                                              py::tuple(py::cast(field.shape)), field.offset));
                               }
                               return fields;
                             })
      .def_property_readonly("slot_bytes", &RolloutLayout::slot_bytes)
      .def_property_readonly("checksum", &RolloutLayout::checksum);

  m.attr("OWNER_FREE") = static_cast<int>(Owner::kFree);
  m.attr("OWNER_DELIVERED") = static_cast<int>(Owner::kDelivered);
  m.attr("OWNER_LEARNER") = static_cast<int>(Owner::kLearner);
  m.attr("OWNER_FIRST_GROUP") = static_cast<int>(Owner::kFirstGroup);
  m.attr("TURN_ACTOR") = static_cast<int>(pbm::shm::Whose::kActor);
  m.attr("TURN_POLICY") = static_cast<int>(pbm::shm::Whose::kPolicy);

  py::class_<Region::Request>(m, "Request")
      .def_readonly("group", &Region::Request::group)
      .def_readonly("slot", &Region::Request::slot)
      .def_readonly("step", &Region::Request::step)
      .def_readonly("answers", &Region::Request::answers);

  py::class_<Region>(m, "Region")
      .def(py::init(&make_region), "layout"_a, "slots"_a, "actors"_a = 1, "groups_per_actor"_a = 1, "run_seed"_a = 0,
           "game"_a = GameSettings{})
      .def_static("attach", &Region::attach, "fd"_a)
      .def_property_readonly("layout", &Region::layout)
      .def_property_readonly("fd", &Region::fd)
      .def_property_readonly("actors", [](const Region& region) { return region.spec().actors; })
      .def_property_readonly("groups", &Region::groups)
      .def("__len__", [](const Region& region) { return region.spec().slots; })
      .def("slot", &slot_view, "index"_a)
      .def("states", &states_view, "group"_a)
      .def("state",
           [](Region& region, std::size_t index) {
             const auto state = pbm::shm::load(region.header(index));
             return py::make_tuple(static_cast<int>(state.owner), state.generation, state.sequence);
           })
      .def("hand_over",
           [](Region& region, std::size_t index, int from, int to) {
             return pbm::shm::hand_over(region.header(index), static_cast<Owner>(from), static_cast<Owner>(to));
           })
      .def("take_back", [](Region& region, std::size_t index,
                           int dead) { return pbm::shm::take_back(region.header(index), static_cast<Owner>(dead)); })
      .def("take_free", [](Region& region, int owner) { return region.take_free(static_cast<Owner>(owner)); })
      .def("deliver", [](Region& region, std::size_t index,
                         int owner) { return region.deliver(index, static_cast<Owner>(owner)); })
      .def("take_delivered", &Region::take_delivered, "count"_a)
      .def("give_back", &Region::give_back, "slot"_a)
      .def("take_back_actor", &Region::take_back_actor, "actor"_a)
      .def("turn",
           [](Region& region, std::size_t group) {
             const auto turn = pbm::shm::load(region.group(group));
             return py::make_tuple(static_cast<int>(turn.whose), turn.answers, turn.generation);
           })
      .def("request", [](Region& region, std::size_t group, std::uint16_t generation, std::uint32_t slot,
                         std::uint32_t step) { return region.request(group, generation, slot, step); })
      .def("requests", &Region::requests, "limit"_a, "first"_a = 0)
      .def("answer", &Region::answer, "request"_a)
      .def("wait_requests", &wait_requests, "timeout_ms"_a)
      .def("wait_delivered", &wait_delivered, "count"_a, "timeout_ms"_a)
      .def("actor_has_work", &Region::actor_has_work, "actor"_a)
      .def("busy_seconds", &busy_seconds)
      .def(
          "add_policy_busy",
          [](Region& region, double seconds) {
            region.control().policy_busy_nanoseconds.fetch_add(static_cast<std::uint64_t>(seconds * 1e9));
          },
          "seconds"_a)
      .def_property_readonly("answers", [](Region& region) { return region.control().answers.load(); })
      .def("heartbeat", [](Region& region, std::size_t actor) { return region.actor(actor).heartbeat.load(); })
      .def("fatal_games",
           [](Region& region, std::size_t actor) {
             auto& block = region.actor(actor);
             return py::make_tuple(block.fatal_games.load(), std::string(block.last_fatal_reason.data()));
           })
      .def("wake_everybody", &Region::wake_everybody)
      .def("set_control", &set_control, "phase"_a, "routing"_a, "temperature"_a)
      .def("set_policy_version",
           [](Region& region, std::int64_t version) { region.control().policy_version.store(version); })
      .def("pause",
           [](Region& region, bool on) {
             region.control().paused.store(on);
             region.wake_everybody();
           })
      .def("stop",
           [](Region& region) {
             region.control().stopped.store(1);
             region.wake_everybody();
           })
      .def_property_readonly("control", &control_dict);
}

void bind_actor(py::module_& m) {
  // Words that processes share: nothing that this thread reads or writes before or after moves past them.
  using Words = py::array_t<std::int64_t, py::array::c_style>;
  m.def(
      "load_word",
      [](Words& words, py::ssize_t index) {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        const std::int64_t value = std::atomic_ref(words.mutable_at(index)).load();
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return value;
      },
      py::arg("words").noconvert(), "index"_a);
  m.def(
      "store_word",
      [](Words& words, py::ssize_t index, std::int64_t value) {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        std::atomic_ref(words.mutable_at(index)).store(value);
        std::atomic_thread_fence(std::memory_order_seq_cst);
      },
      py::arg("words").noconvert(), "index"_a, "value"_a);
  m.def("episode_seeds", [](std::uint64_t run_seed, std::uint64_t game, std::uint64_t episode) {
    const Seeds seeds = pbm::actor::episode_seeds(run_seed, game, episode);
    return py::make_tuple(seeds.core, seeds.disp);
  });
  py::class_<Group>(m, "Group")
      .def(py::init([](std::shared_ptr<LibraryFile> library, const GameSettings& settings,
                       const std::filesystem::path& directory, const RolloutLayout& layout, std::uint64_t run_seed,
                       std::uint64_t first_game, std::uint64_t first_episode) {
             return std::make_unique<Group>(library, settings, directory, layout, run_seed, first_game, first_episode);
           }),
           "library"_a, "settings"_a, "directory"_a, "layout"_a, py::kw_only(), "run_seed"_a, "first_game"_a,
           "first_episode"_a = 0)
      .def(
          "open", [](Group& group, Region& region, std::size_t slot) { group.open(region.slot(slot)); },
          py::call_guard<py::gil_scoped_release>())
      .def(
          "step",
          [](Group& group, Region& region, std::size_t slot, std::size_t t) { group.step(region.slot(slot), t); },
          py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("games", &Group::games)
      .def_property_readonly("fatal_games", &Group::fatal_games)
      .def_property_readonly("last_fatal_reason", &Group::last_fatal_reason);
  py::class_<Standing>(m, "Standing")
      .def(py::init([](std::uint64_t next_episode, bool begun, bool whole, std::uint64_t core, std::uint64_t disp,
                       std::int64_t frozen_steps, const std::string& actions, double alpha_entropy_sum,
                       std::uint64_t fingerprint) {
             return Standing{next_episode,
                             begun,
                             whole,
                             {core, disp, std::nullopt},
                             frozen_steps,
                             {actions.begin(), actions.end()},
                             alpha_entropy_sum,
                             fingerprint};
           }),
           py::kw_only(), "next_episode"_a, "begun"_a, "whole"_a, "core"_a, "disp"_a, "frozen_steps"_a, "actions"_a,
           "alpha_entropy_sum"_a, "fingerprint"_a)
      .def_readonly("next_episode", &Standing::next_episode)
      .def_readonly("begun", &Standing::begun)
      .def_readonly("whole", &Standing::whole)
      .def_property_readonly("core", [](const Standing& one) { return one.seeds.core; })
      .def_property_readonly("disp", [](const Standing& one) { return one.seeds.disp; })
      .def_readonly("frozen_steps", &Standing::frozen_steps)
      .def_property_readonly("actions",
                             [](const Standing& one) {
                               return py::bytes(reinterpret_cast<const char*>(one.actions.data()), one.actions.size());
                             })
      .def_readonly("alpha_entropy_sum", &Standing::alpha_entropy_sum)
      .def_readonly("fingerprint", &Standing::fingerprint);
  py::class_<Actor>(m, "Actor")
      .def(py::init<Region&, std::size_t, const std::filesystem::path&, std::uint64_t, std::size_t>(),
           py::keep_alive<1, 2>(), "region"_a, "index"_a, "directory"_a, "first_episode"_a, "keep_actions"_a = 0)
      .def("standing", &Actor::standing)
      .def("restore", &Actor::restore, "standing"_a, py::call_guard<py::gil_scoped_release>())
      .def("run_once", &Actor::run_once, py::call_guard<py::gil_scoped_release>());
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The C++ parts of polybeast_moe: NetHack games, rollout slots, groups.";
  bind_nethack(m);
  bind_shm(m);
  bind_actor(m);
  bind_envs(m);
}
