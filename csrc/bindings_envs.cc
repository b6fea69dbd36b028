// The Python face of csrc/envs: games for vector environments.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include "envs/block.h"
#include "envs/games.h"
#include "envs/orders.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using pbm::envs::Block;
using pbm::envs::Games;

Block make_block(const pbm::nethack::GameSettings& settings, std::size_t games, std::size_t processes,
                 const std::vector<std::string>& keys, bool reward_terms) {
  pbm::envs::BlockSpec spec{.games = games, .processes = processes, .keys = 0, .reward_terms = reward_terms};
  for (const std::string& key : keys) {
    std::size_t i = 0;
    while (i < pbm::nethack::kObservationKeys.size() && pbm::nethack::kObservationKeys[i].name != key) ++i;
    if (i == pbm::nethack::kObservationKeys.size()) throw std::invalid_argument("unknown observation key " + key);
    spec.keys |= 1U << i;
  }
  return Block(spec, settings);
}

// Arrays of the block's memory by name; each keeps the block alive.
py::dict field_views(py::object self) {
  const auto& block = self.cast<const Block&>();
  py::dict views;
  for (const auto& field : block.fields()) {
    views[field.name.c_str()] =
        py::array(py::dtype(field.dtype), std::vector<py::ssize_t>(field.shape.begin(), field.shape.end()), {},
                  block.base() + field.offset, self);
  }
  return views;
}

// What went wrong in the workers with the last order, worker by worker; forgotten once told.
std::vector<std::string> take_errors(const Block& block) {
  std::vector<std::string> errors;
  for (std::size_t i = 0; i < block.spec().processes; ++i) {
    auto& text = block.worker(i).error;
    errors.emplace_back(text.data());
    text[0] = '\0';
  }
  return errors;
}

}  // namespace

void bind_envs(py::module_& m) {
  py::list keys, terms;
  for (const auto& key : pbm::nethack::kObservationKeys) keys.append(py::str(std::string(key.name)));
  for (const auto& term : pbm::nethack::kRewardTerms) terms.append(py::str(std::string(term)));
  m.attr("OBSERVATION_KEYS") = py::tuple(keys);
  m.attr("REWARD_TERMS") = py::tuple(terms);
  m.attr("TODO_NOTHING") = static_cast<int>(pbm::envs::Todo::kNothing);
  m.attr("TODO_STEP") = static_cast<int>(pbm::envs::Todo::kStep);
  m.attr("TODO_RESET") = static_cast<int>(pbm::envs::Todo::kReset);
  py::class_<Block>(m, "GameBlock")
      .def(py::init(&make_block), "settings"_a, "games"_a, "processes"_a, "keys"_a, "reward_terms"_a)
      .def_property_readonly("fd", &Block::fd)
      .def("fields", &field_views)
      .def("give_order", &pbm::envs::give_order)
      .def("wait_for_workers", &pbm::envs::wait_for_workers, "timeout_ms"_a, py::call_guard<py::gil_scoped_release>())
      .def("stop_workers", &pbm::envs::stop_workers)
      .def("take_errors", &take_errors);
  py::class_<Games>(m, "Games")
      .def(py::init<const Block&, std::size_t, std::size_t, const std::filesystem::path&>(), py::keep_alive<1, 2>(),
           "block"_a, "first"_a, "last"_a, "directory"_a)
      .def("run", &Games::run, py::call_guard<py::gil_scoped_release>());
}
