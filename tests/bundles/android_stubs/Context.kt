// Stubs of the parts of Android that the bundle uses, to compile and run it on a JVM.
package android.content

import android.content.res.AssetManager

class Context(val assets: AssetManager)
