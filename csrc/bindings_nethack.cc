// The Python face of csrc/nethack: games.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include "nethack/game.h"
#include "nethack/library_file.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using pbm::nethack::Game;
using pbm::nethack::GameSettings;
using pbm::nethack::LibraryFile;

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

}  // namespace

void bind_nethack(py::module_& m) {
  py::register_exception<pbm::nethack::FatalGameError>(m, "FatalGameError", PyExc_RuntimeError);
  py::class_<LibraryFile, std::shared_ptr<LibraryFile>>(m, "LibraryFile")
      .def(py::init<const std::string&>(), "path"_a)
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
           [](Game& game, std::int64_t action) {
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
}
