"""The node's own features, one plug-in each, in the order a connection meets them.

``certificate`` binds AE titles to certificates, ``identity`` settles who the user is,
``access`` whether he may, ``storage`` keeps the instance, ``audit`` records all of it.
"""
