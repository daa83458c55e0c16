/* Makes a compiled module by calling mypyc's initializer of it. mypyc writes a file of its own for each module that does
   no more than that; one function for all of them spares the start of a process a hundred files. */
#include <Python.h>

static PyObject *load(PyObject *self, PyObject *capsule)
{
    const char *name = PyCapsule_GetName(capsule);
    void *initializer = name == NULL ? NULL : PyCapsule_GetPointer(capsule, name);
    if (initializer == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ImportError, "not an initializer of a compiled module");
        return NULL;
    }
    return ((PyObject *(*)(void))initializer)();
}

static PyMethodDef methods[] = {{"load", load, METH_O, NULL}, {NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "load", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit_load(void)
{
    return PyModule_Create(&definition);
}
