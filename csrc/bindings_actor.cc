// The Python face of csrc/actor: groups and actors, for the inline mode and for tests.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <atomic>
#include <memory>

#include "actor/actor.h"
#include "actor/group.h"
#include "shm/region.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using pbm::actor::Actor;
using pbm::actor::Group;
using pbm::actor::SavedGame;
using pbm::nethack::GameSettings;
using pbm::nethack::LibraryFile;
using pbm::nethack::Seeds;
using pbm::shm::Region;
using pbm::shm::RolloutLayout;

// Words that processes share: nothing that this thread reads or writes before or after moves past them.
using Words = py::array_t<std::int64_t, py::array::c_style>;

std::int64_t load_word(Words& words, std::size_t index) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const std::int64_t value = std::atomic_ref(words.mutable_at(index)).load();
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return value;
}

void store_word(Words& words, std::size_t index, std::int64_t value) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  std::atomic_ref(words.mutable_at(index)).store(value);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

py::tuple episode_seeds(std::uint64_t run_seed, std::uint64_t game, std::uint64_t episode) {
  const Seeds seeds = pbm::actor::episode_seeds(run_seed, game, episode);
  return py::make_tuple(seeds.core, seeds.disp);
}

std::unique_ptr<Group> make_group(const std::shared_ptr<LibraryFile>& library, const GameSettings& settings,
                                  const std::filesystem::path& directory, const RolloutLayout& layout,
                                  std::uint64_t run_seed, std::uint64_t first_game, std::uint64_t first_episode) {
  return std::make_unique<Group>(library, settings, directory, layout, run_seed, first_game, first_episode);
}

void bind_group(py::module_& m) {
  py::class_<Group>(m, "Group")
      .def(py::init(&make_group), "library"_a, "settings"_a, "directory"_a, "layout"_a, py::kw_only(), "run_seed"_a,
           "first_game"_a, "first_episode"_a = 0)
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
}

SavedGame make_saved_game(std::uint64_t next_episode, bool begun, bool whole, std::uint64_t core, std::uint64_t disp,
                          std::int64_t frozen_steps, const std::string& actions, double alpha_entropy_sum,
                          std::uint64_t fingerprint) {
  return {.next_episode = next_episode,
          .begun = begun,
          .whole = whole,
          .seeds = {core, disp, std::nullopt},
          .frozen_steps = frozen_steps,
          .actions = {actions.begin(), actions.end()},
          .alpha_entropy_sum = alpha_entropy_sum,
          .fingerprint = fingerprint};
}

py::bytes saved_actions(const SavedGame& saved) {
  return {reinterpret_cast<const char*>(saved.actions.data()), saved.actions.size()};
}

void bind_saved_game(py::module_& m) {
  py::class_<SavedGame>(m, "SavedGame")
      .def(py::init(&make_saved_game), py::kw_only(), "next_episode"_a, "begun"_a, "whole"_a, "core"_a, "disp"_a,
           "frozen_steps"_a, "actions"_a, "alpha_entropy_sum"_a, "fingerprint"_a)
      .def_readonly("next_episode", &SavedGame::next_episode)
      .def_readonly("begun", &SavedGame::begun)
      .def_readonly("whole", &SavedGame::whole)
      .def_property_readonly("core", [](const SavedGame& saved) { return saved.seeds.core; })
      .def_property_readonly("disp", [](const SavedGame& saved) { return saved.seeds.disp; })
      .def_readonly("frozen_steps", &SavedGame::frozen_steps)
      .def_property_readonly("actions", &saved_actions)
      .def_readonly("alpha_entropy_sum", &SavedGame::alpha_entropy_sum)
      .def_readonly("fingerprint", &SavedGame::fingerprint);
}

}  // namespace

void bind_actor(py::module_& m) {
  m.def("load_word", &load_word, py::arg("words").noconvert(), "index"_a);
  m.def("store_word", &store_word, py::arg("words").noconvert(), "index"_a, "value"_a);
  m.def("episode_seeds", &episode_seeds, "run_seed"_a, "game"_a, "episode"_a);
  bind_group(m);
  bind_saved_game(m);
  py::class_<Actor>(m, "Actor")
      .def(py::init<Region&, std::size_t, const std::filesystem::path&, std::uint64_t, std::size_t>(),
           py::keep_alive<1, 2>(), "region"_a, "index"_a, "directory"_a, "first_episode"_a, "keep_actions"_a = 0)
      .def("saved_games", &Actor::saved_games)
      .def("restore", &Actor::restore, "saved"_a, py::call_guard<py::gil_scoped_release>())
      .def("run_once", &Actor::run_once, py::call_guard<py::gil_scoped_release>());
}
