/* The daemon as a program. */
#pragma once

int nbdd_main(int argc, char **argv);
