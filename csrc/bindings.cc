// The Python face of the C++ parts, `polybeast_moe._C`: a bindings_*.cc for each folder. Only these files include
// pybind11. The GIL is released while games are stepped, and wherever a call waits.
#include <pybind11/pybind11.h>

#include <exception>
#include <system_error>

namespace py = pybind11;

void bind_nethack(py::module_& m);     // bindings_nethack.cc
void bind_conditions(py::module_& m);  // bindings_conditions.cc
void bind_shm(py::module_& m);         // bindings_shm.cc
void bind_actor(py::module_& m);       // bindings_actor.cc
void bind_envs(py::module_& m);        // bindings_envs.cc

namespace {

// What the system refused is an OSError with its errno; pybind11 knows the rest of the standard's exceptions.
void translate_system_error(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const std::system_error& error) {
    PyErr_SetObject(PyExc_OSError, py::make_tuple(error.code().value(), error.what()).ptr());
  }
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The C++ parts of polybeast_moe: NetHack games, conditions, rollout slots, actors, vector environments.";
  py::register_local_exception_translator(&translate_system_error);
  bind_nethack(m);
  bind_conditions(m);
  bind_shm(m);
  bind_actor(m);
  bind_envs(m);
}
